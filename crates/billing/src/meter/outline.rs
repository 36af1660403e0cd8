//! What an event that is too long to be kept tells: its type and its usage, found as it passes.
//!
//! A response that ends with all that was said and offered can be longer than any event that is kept,
//! and its usage stands near its end. Depth is followed through the whole of it, so that nothing that
//! a client had written into it is taken for the usage.

/// Names are no longer than this; of longer strings this much is remembered.
const NAME_BYTES_MAX: usize = 64;
/// The most that is kept of a usage.
const USAGE_BYTES_MAX: usize = 64 * 1024;

/// Follows the document in an event.
#[derive(Debug, Default)]
pub(super) struct Outline {
    depth: usize,
    text: Text,
    /// The last string, and the name of the member of the document that is being read.
    last: Vec<u8>,
    member: Vec<u8>,
    kind: Vec<u8>,
    /// The member that holds the usage (nothing: the document itself), and the usage.
    holder: Vec<u8>,
    usage: Vec<u8>,
    capture: Capture,
}

/// Where in the text the last byte was.
#[derive(Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    Escaped,
}

/// Whether the usage is being read.
#[derive(Debug, Default, PartialEq, Eq)]
enum Capture {
    #[default]
    Off,
    /// Its name was.
    Named,
    /// It is, at this depth.
    On(usize),
}

impl Outline {
    /// Takes the next bytes. What they complete is given as a document with the same type and usage.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut document = None;
        for byte in bytes {
            if self.capture != Capture::Off && self.usage.len() < USAGE_BYTES_MAX {
                self.usage.push(*byte);
            }
            match self.text {
                Text::Outside => document = self.outside(*byte).or(document),
                Text::Escaped => self.text = Text::Inside,
                Text::Inside => self.inside(*byte),
            }
        }
        document
    }

    fn inside(&mut self, byte: u8) {
        match byte {
            b'\\' => self.text = Text::Escaped,
            b'"' => {
                self.text = Text::Outside;
                if self.depth == 1 && self.member == b"type" {
                    self.kind.clone_from(&self.last);
                }
            }
            _ if self.last.len() < NAME_BYTES_MAX => self.last.push(byte),
            _ => {}
        }
    }

    fn outside(&mut self, byte: u8) -> Option<Vec<u8>> {
        match byte {
            b'"' if 0 < self.depth => {
                self.text = Text::Inside;
                self.last.clear();
            }
            b':' => self.name(),
            b',' if self.depth == 1 => self.member.clear(),
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                if self.capture == Capture::Named {
                    self.capture = Capture::On(self.depth);
                }
            }
            b'}' | b']' => {
                if self.capture == Capture::On(self.depth) {
                    self.capture = Capture::Off;
                }
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return std::mem::take(self).document();
                }
            }
            _ => {}
        }
        None
    }

    /// A name was read.
    fn name(&mut self) {
        if self.depth == 1 {
            self.member.clone_from(&self.last);
        }
        let held = self.depth == 2 && matches!(self.member.as_slice(), b"response" | b"message");
        if self.last == b"usage" && (self.depth == 1 || held) {
            self.holder = if held { self.member.clone() } else { Vec::new() };
            self.usage.clear();
            self.capture = Capture::Named;
        }
    }

    fn document(self) -> Option<Vec<u8>> {
        let usage: serde_json::Value = serde_json::from_slice(&self.usage).unwrap_or_default();
        let kind = String::from_utf8(self.kind).ok()?;
        let document = match self.holder.as_slice() {
            b"response" => serde_json::json!({"type": kind, "response": {"usage": usage}}),
            b"message" => serde_json::json!({"type": kind, "message": {"usage": usage}}),
            _ => serde_json::json!({"type": kind, "usage": usage}),
        };
        Some(document.to_string().into_bytes())
    }
}
