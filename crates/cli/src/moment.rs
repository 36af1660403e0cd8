//! Times as people and spreadsheets write them: UTC, ISO 8601.

use farebox_protocol::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// `2026-11-21T09:30:00.000Z`, to the millisecond, always of the same length; the number of
/// milliseconds where no calendar goes so far.
pub(crate) fn text(at: Timestamp) -> String {
    let millis = i64::try_from(at.millis()).ok();
    match millis.and_then(|it| jiff::Timestamp::from_millisecond(it).ok()) {
        Some(moment) => format!("{moment:.3}"),
        None => at.millis().to_string(),
    }
}

/// A day, which begins at midnight UTC, or a moment with its offset.
pub(crate) fn parse(written: &str) -> Result<Timestamp, String> {
    let moment = match written.parse::<Date>() {
        // A moment reads as its day, too.
        Ok(day) if !written.contains(['T', 't', ' ']) => {
            day.to_zoned(TimeZone::UTC).map(|it| it.timestamp())
        }
        Ok(_) | Err(_) => written.parse::<jiff::Timestamp>(),
    };
    let millis = moment.ok().and_then(|it| u64::try_from(it.as_millisecond()).ok());
    let expected = "expected a time such as 2026-11-21, or 2026-11-21T09:30:00Z";
    millis.map(Timestamp::from_millis).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: Option<u64>) {
        assert_eq!(parse(written).ok().map(Timestamp::millis), expected, "{written}");
    }

    #[test]
    fn moments() {
        check("2026-11-21", Some(1_795_219_200_000));
        check("2026-11-21T00:00:00Z", Some(1_795_219_200_000));
        check("2026-11-21T01:00:00+01:00", Some(1_795_219_200_000));
        check("2026-11-21T00:00:00.25Z", Some(1_795_219_200_250));
        check("1970-01-01", Some(0));
        for bad in ["", "now", "2026-13-01", "2026-11-21T09:30", "1795219200", "1969-12-31"] {
            check(bad, None);
        }
    }

    #[test]
    fn every_moment_has_its_text() {
        assert_eq!(text(Timestamp::from_millis(1_795_219_200_250)), "2026-11-21T00:00:00.250Z");
        assert_eq!(text(Timestamp::from_millis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(Timestamp::from_millis(u64::MAX)), u64::MAX.to_string());
    }
}
