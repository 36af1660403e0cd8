//! Block time: the wall clock, shifted as the tester wishes, and never backwards.

/// Where the chain's time stands against the wall clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChainTime {
    /// Seconds added to the wall clock.
    offset_s: i64,
    /// Timestamp asked for the next block, Unix seconds.
    next: Option<u64>,
}

impl ChainTime {
    /// The chain's time when the wall clock shows `now`, both Unix seconds.
    pub(crate) fn now(self, now: u64) -> u64 {
        now.saturating_add_signed(self.offset_s)
    }

    /// The timestamp of a block mined at `now` on a parent of time `parent`: never before it. Equal
    /// is allowed, as on chains with several blocks a second: 64 instant blocks must not run the
    /// chain a minute ahead of the clock.
    pub(crate) fn block(self, now: u64, parent: u64) -> u64 {
        self.next.unwrap_or_else(|| self.now(now)).max(parent)
    }

    /// Notes that a block of time `timestamp` was mined at `now`: a time asked for carries on from there.
    pub(crate) fn mined(&mut self, now: u64, timestamp: u64) {
        if self.next.take().is_some() {
            self.set_now(now, timestamp);
        }
    }

    /// Moves on by `seconds`; returns the total shift.
    pub(crate) fn increase(&mut self, seconds: u64) -> i64 {
        self.offset_s = self.offset_s.saturating_add_unsigned(seconds);
        self.offset_s
    }

    /// Makes the chain's time `timestamp` at the wall clock's `now`.
    pub(crate) fn set_now(&mut self, now: u64, timestamp: u64) {
        self.offset_s = timestamp.checked_signed_diff(now).unwrap_or(i64::MAX);
    }

    /// Asks for the next block's timestamp.
    pub(crate) fn set_next(&mut self, timestamp: u64) {
        self.next = Some(timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_the_clock_and_its_shift() {
        let mut time = ChainTime::default();
        assert_eq!(time.block(1000, 990), 1000);
        assert_eq!(time.block(1000, 1005), 1005, "never backwards");
        assert_eq!(time.increase(60), 60);
        assert_eq!(time.block(1000, 990), 1060);
    }

    #[test]
    fn a_time_asked_for_is_used_once_and_carries_on() {
        let mut time = ChainTime::default();
        time.set_next(5000);
        assert_eq!(time.block(1000, 990), 5000);
        time.mined(1000, 5000);
        assert_eq!(time.block(1007, 5000), 5007);
    }

    #[test]
    fn time_can_be_set_into_the_past_of_the_clock() {
        let mut time = ChainTime::default();
        time.set_now(1000, 400);
        assert_eq!(time.block(1001, 300), 401);
    }
}
