//! Who waits to be settled with others, and when those who wait go: at once where nothing is under way,
//! so that nobody waits for company; under load when there are enough, or a moment has passed. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// With so many transactions on their way, others gather for a moment: there is load.
const BUSY: usize = 2;

/// What bounds one transaction, and the wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The most members.
    pub(crate) most: usize,
    /// The most gas, as estimated for each alone.
    pub(crate) gas_max: u64,
    /// The longest wait for company.
    pub(crate) window: Duration,
    /// Who waits at all.
    pub(crate) patience: Patience,
}

/// Who waits for company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Whoever comes while transactions are under way.
    UnderLoad,
    /// Everybody.
    Always,
}

/// Those who wait.
#[derive(Debug)]
pub(crate) struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    gas: u64,
    /// Transactions that are being prepared.
    preparing: usize,
    /// Transactions that may be mined.
    in_flight: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    gas: u64,
    since: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// Nothing: nobody waits.
    Idle,
    /// Look again then, or when something changes.
    Wait(Instant),
    /// These are one transaction, which counts as being prepared from now on.
    Go(Vec<T>),
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), gas: 0, preparing: 0, in_flight: 0 }
    }
}

impl<T> Line<T> {
    pub(crate) fn push(&mut self, item: T, gas: u64, now: Instant) {
        self.gas = self.gas.saturating_add(gas);
        self.waiting.push_back(Waiting { item, gas, since: now });
    }

    pub(crate) fn next(&mut self, now: Instant, limits: Limits) -> Next<T> {
        let Some(first) = self.waiting.front() else { return Next::Idle };
        let is_busy =
            limits.patience == Patience::Always || 0 < self.preparing || BUSY <= self.in_flight;
        let is_full = limits.most <= self.waiting.len() || limits.gas_max <= self.gas;
        let until = first.since.checked_add(limits.window).unwrap_or(now);
        if is_busy && !is_full && now < until {
            return Next::Wait(until);
        }
        self.preparing = self.preparing.saturating_add(1);
        Next::Go(self.take(limits))
    }

    /// The longest waiting, as many as go together; one in any case.
    fn take(&mut self, limits: Limits) -> Vec<T> {
        let mut taken = Vec::new();
        let mut gas = 0_u64;
        while let Some(next) = self.waiting.front() {
            gas = gas.saturating_add(next.gas);
            let fits = taken.len() < limits.most && gas <= limits.gas_max;
            if !fits && !taken.is_empty() {
                break;
            }
            if let Some(next) = self.waiting.pop_front() {
                self.gas = self.gas.saturating_sub(next.gas);
                taken.push(next.item);
            }
        }
        taken
    }

    /// One that was being prepared may be mined from now on.
    pub(crate) fn departed(&mut self) {
        self.preparing = self.preparing.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// One that was being prepared was not sent.
    pub(crate) fn given_up(&mut self) {
        self.preparing = self.preparing.saturating_sub(1);
    }

    /// One that was on its way is not any more.
    pub(crate) fn landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(50);
    const LIMITS: Limits =
        Limits { most: 4, gas_max: 100, window: WINDOW, patience: Patience::UnderLoad };

    fn line(gases: &[u64], now: Instant) -> Line<usize> {
        let mut line = Line::default();
        for (index, gas) in gases.iter().enumerate() {
            line.push(index, *gas, now);
        }
        line
    }

    #[tokio::test]
    async fn who_comes_alone_goes_at_once_and_the_next_wait_for_that() {
        let now = Instant::now();
        let mut line = line(&[10], now);
        assert_eq!(line.next(now, LIMITS), Next::Go(vec![0]));
        assert_eq!(line.next(now, LIMITS), Next::Idle);
        line.push(1, 10, now);
        line.push(2, 10, now + WINDOW / 2);
        assert_eq!(line.next(now, LIMITS), Next::Wait(now + WINDOW));
        line.departed();
        assert_eq!(line.next(now, LIMITS), Next::Go(vec![1, 2]));
    }

    #[tokio::test]
    async fn under_load_a_full_line_or_the_end_of_the_window_goes() {
        let now = Instant::now();
        let mut line = line(&[10, 10, 10], now);
        (line.preparing, line.in_flight) = (0, BUSY);
        assert_eq!(line.next(now, LIMITS), Next::Wait(now + WINDOW));
        line.push(3, 10, now);
        assert_eq!(line.next(now, LIMITS), Next::Go(vec![0, 1, 2, 3]));
        line.push(4, 10, now);
        assert!(matches!(line.next(now, LIMITS), Next::Wait(_)));
        assert_eq!(line.next(now + WINDOW, LIMITS), Next::Go(vec![4]));
        // What lands makes room.
        line.push(5, 10, now);
        (line.preparing, line.in_flight) = (0, BUSY);
        line.landed();
        assert_eq!(line.next(now, LIMITS), Next::Go(vec![5]));
    }

    #[tokio::test]
    async fn where_all_are_patient_even_the_first_waits() {
        let now = Instant::now();
        let limits = Limits { patience: Patience::Always, ..LIMITS };
        let mut line = line(&[10], now);
        assert_eq!(line.next(now, limits), Next::Wait(now + WINDOW));
        assert_eq!(line.next(now + WINDOW, limits), Next::Go(vec![0]));
    }

    #[tokio::test]
    async fn gas_and_count_bound_what_goes_together() {
        let now = Instant::now();
        let mut line = line(&[60, 30, 20, 500, 1, 1, 1, 1, 1], now);
        let mut gone = Vec::new();
        while let Next::Go(batch) = line.next(now + WINDOW, LIMITS) {
            gone.push(batch);
        }
        // One that is too dear for any company goes alone.
        assert_eq!(gone, [vec![0, 1], vec![2], vec![3], vec![4, 5, 6, 7], vec![8]]);
        assert_eq!((line.gas, line.preparing), (0, 5));
        line.given_up();
        assert_eq!(line.preparing, 4);
    }
}
