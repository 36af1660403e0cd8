//! Tells what happens while it happens.

use std::time::Duration;

use farebox_gateway::{Clock, SystemClock};
use farebox_protocol::Timestamp;

use crate::output::{Output, Stream};

/// Writes progress lines, each with the seconds since the start.
#[derive(Debug)]
pub(crate) struct Narrator<'a> {
    output: &'a Output,
    stream: Stream,
    started: Timestamp,
}

impl<'a> Narrator<'a> {
    /// Begins to count.
    pub(crate) fn new(output: &'a Output, stream: Stream) -> Self {
        Self { output, stream, started: SystemClock.now() }
    }

    /// How long it has been.
    pub(crate) fn elapsed(&self) -> Duration {
        SystemClock.now().since(self.started)
    }

    /// A line about the whole.
    pub(crate) fn say(&self, text: &str) {
        let paint = self.output.paint(self.stream);
        self.output.line(self.stream, format!("{} {text}", paint.dim(self.time())));
    }

    /// A step begins.
    pub(crate) fn begin(&self, number: usize, title: &str) {
        let paint = self.output.paint(self.stream);
        let title = paint.bold(format!("{number}. {title}"));
        self.output.line(self.stream, format!("{} {title}", paint.dim(self.time())));
    }

    /// What came of it.
    pub(crate) fn tell(&self, text: &str) {
        let paint = self.output.paint(self.stream);
        self.output.line(self.stream, format!("{}    {text}", paint.dim(self.time())));
    }

    fn time(&self) -> String {
        let elapsed = self.elapsed();
        format!("[{:>2}.{} s]", elapsed.as_secs(), elapsed.subsec_millis() / 100)
    }
}
