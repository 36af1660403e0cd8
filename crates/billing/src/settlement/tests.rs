//! The table of both machines.

use super::*;

const NOW: u64 = 1_000_000;

fn moment() -> Moment {
    Moment { now: Timestamp::from_millis(NOW), random: 0, awaited: false }
}

fn fresh() -> Attempt {
    let settle_by = Timestamp::from_millis(NOW).plus(Duration::from_mins(4));
    Attempt { attempts: 0, may_have_been_sent: false, answer: Answer::Left, settle_by }
}

fn withheld(attempt: Attempt) -> Attempt {
    Attempt { answer: Answer::Withheld, ..attempt }
}

/// One that an earlier try may have sent.
fn unsure() -> Attempt {
    Attempt { attempts: 1, may_have_been_sent: true, ..fresh() }
}

fn later(millis: u64) -> Timestamp {
    Timestamp::from_millis(NOW.saturating_add(millis))
}

fn unknown(name: Option<&str>, millis: u64) -> Verdict {
    Verdict::Unknown { transaction: name.map(str::to_owned), retry_at: later(millis) }
}

fn rejected(reason: &str) -> Verdict {
    Verdict::Rejected { reason: reason.to_owned() }
}

fn seen(final_in: Option<Duration>) -> Seen {
    Seen { transaction: "0x1".to_owned(), final_in }
}

fn settled(look_at: Option<Timestamp>) -> Verdict {
    Verdict::Settled(Landing { transaction: "0x1".to_owned(), look_at })
}

#[test]
fn how_a_try_begins() {
    let awaited = Moment { awaited: true, ..moment() };
    let abandoned = Step::Record(rejected(ABANDONED));
    for (attempt, moment, step) in [
        (fresh(), moment(), Step::Send),
        (withheld(fresh()), awaited, Step::Send),
        (withheld(fresh()), moment(), abandoned),
        (unsure(), moment(), Step::LookUp),
        (withheld(unsure()), moment(), Step::LookUp),
        (withheld(unsure()), awaited, Step::LookUp),
    ] {
        assert_eq!(attempt.begin(moment), step, "{attempt:?} {moment:?}");
    }
}

#[test]
fn what_a_look_decides() {
    let expired = Moment { now: unsure().settle_by.plus(EXPIRY_MARGIN), random: 0, awaited: false };
    let reason = "expired".to_owned();
    let unknown = || Step::Record(unknown(None, 500));
    for (attempt, found, moment, step) in [
        (unsure(), Found::Landed(seen(None)), moment(), Step::Record(settled(None))),
        (unsure(), Found::Dead { reason }, moment(), Step::Record(rejected("expired"))),
        (unsure(), Found::Open, moment(), Step::Send),
        (unsure(), Found::CannotTell, moment(), Step::Send),
        (unsure(), Found::NoAnswer, moment(), unknown()),
        (withheld(unsure()), Found::Open, moment(), unknown()),
        (withheld(unsure()), Found::Open, Moment { awaited: true, ..moment() }, unknown()),
        (withheld(unsure()), Found::CannotTell, moment(), unknown()),
        (withheld(unsure()), Found::CannotTell, expired, Step::Send),
    ] {
        assert_eq!(attempt.looked_up(found.clone(), moment), step, "{attempt:?} {found:?}");
    }
}

#[test]
fn what_sending_comes_to() {
    let refused = |used| Sent::Refused { reason: "used".to_owned(), used };
    let named = Sent::Unknown { transaction: Some("0x2".to_owned()) };
    for (attempt, sent, verdict) in [
        (fresh(), Sent::Landed(seen(None)), settled(None)),
        (fresh(), refused(false), rejected("used")),
        (fresh(), refused(true), rejected("used")),
        (unsure(), refused(false), rejected("used")),
        (unsure(), refused(true), unknown(None, 500)),
        (fresh(), Sent::Nothing, Verdict::NotSent { retry_at: later(250) }),
        (unsure(), Sent::Nothing, Verdict::NotSent { retry_at: later(500) }),
        (fresh(), named, unknown(Some("0x2"), 250)),
    ] {
        assert_eq!(attempt.sent(sent.clone(), moment()), verdict, "{attempt:?} {sent:?}");
    }
}

#[test]
fn a_payment_outlives_a_configuration_until_it_ends() {
    let not_served = || Sent::NotServed { reason: "invalid_network".to_owned() };
    let ended = Moment { now: fresh().settle_by.plus(EXPIRY_MARGIN), ..moment() };
    let again = |now: Timestamp, pause| Verdict::NotSent {
        retry_at: now.plus(Duration::from_millis(pause)),
    };
    assert_eq!(fresh().sent(not_served(), moment()), again(moment().now, 250));
    assert_eq!(fresh().sent(not_served(), ended), rejected("invalid_network"));
    assert_eq!(unsure().sent(not_served(), ended), again(ended.now, 500));
}

#[test]
fn pauses_double_up_to_a_minute_and_half_of_each_is_random() {
    for (attempts, least) in [(0, 250), (1, 500), (3, 2_000), (6, 16_000), (7, 30_000)] {
        assert_eq!(pause(attempts, 0), Duration::from_millis(least));
        assert_eq!(pause(attempts, u64::MAX), Duration::from_millis(2 * least - 1));
        assert_eq!(pause(attempts, u64::MAX / 2 + 1), Duration::from_millis(least + least / 2));
    }
    assert_eq!(pause(u32::MAX, 0), Duration::from_secs(30));
}

#[test]
fn what_can_be_taken_back_is_looked_at_again() {
    for (final_in, look) in [(0, 1_000), (12, 12_000), (768, 30_000)] {
        let seen = seen(Some(Duration::from_secs(final_in)));
        let verdict = fresh().sent(Sent::Landed(seen), moment());
        assert_eq!(verdict, settled(Some(later(look))), "{final_in}");
    }
}

#[track_caller]
fn check_look(depths: &[Depth], last: WatchStep) {
    let mut look = Look::default();
    let steps: Vec<_> = depths.iter().map(|it| look.saw(*it, moment())).collect();
    assert_eq!(steps.last(), Some(&last), "{depths:?} {steps:?}");
}

#[test]
fn only_what_is_gone_twice_is_reopened() {
    let shallow = Depth::Shallow { left: Duration::from_secs(5) };
    let doubt = WatchStep::Doubt(Duration::from_secs(2));
    let wait = WatchStep::Wait { look_at: later(5_000) };
    check_look(&[Depth::Final], WatchStep::Finish);
    check_look(&[Depth::CannotTell], WatchStep::Finish);
    check_look(&[shallow], wait);
    check_look(&[Depth::Gone], doubt);
    check_look(&[Depth::Gone, shallow], wait);
    check_look(&[Depth::Gone, Depth::Final], WatchStep::Finish);
    check_look(&[Depth::Gone, Depth::Gone], WatchStep::Reopen);
    // Silence in between is no second time.
    check_look(&[Depth::Gone, Depth::NoAnswer, Depth::Gone], doubt);
    check_look(&[Depth::NoAnswer], WatchStep::Wait { look_at: later(4_000) });
}
