//! What a child says over its pipe: one line for each thing that happened, in that order.
//!
//! The pipe is the world outside of the ledger: an answer has left, a transaction is on the chain,
//! an operation is acknowledged, when its line is written and not before.

use std::fmt;
use std::str::FromStr;

/// Stands before each line, because the test harness writes to the same pipe.
const MARK: &str = "ack: ";

/// Something that happened to a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The payment's number; 0 for the child itself.
    pub(super) number: u64,
    pub(super) what: What,
}

/// What happened. Everything but `Asked` and `Trouble` is something that must not be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The ledger is open.
    Opened,
    /// It has put in order what the life before left.
    Recovered,
    /// The script is through.
    Done,
    /// A hold is about to be asked for.
    Asked,
    Held,
    /// Refused for now: in progress, or too much open.
    Refused,
    /// Refused for ever: it was used.
    Used,
    Serving,
    Metered(u64),
    /// The first byte of an answer leaves.
    Left,
    /// Bytes leave that are worth so much, with all before them.
    Chunk(u64),
    /// Captured while nothing had left.
    Withheld(u64),
    /// Captured when something may have left.
    Captured(u64),
    Released,
    /// A transaction of that nonce is sent to the chain, and lands.
    Broadcast(u64),
    Settled(u64),
    Rejected,
    Sent,
    /// Owed back to its payer.
    Owed,
    /// After an unknown outcome the ledger was asked, and said this.
    Seen(String),
    /// The ledger gave no good answer to an operation.
    Trouble(String),
}

impl Event {
    /// Writes the line; the pipe takes it as a whole.
    pub(super) fn say(number: u64, what: What) {
        println!("{}", Self { number, what });
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{} ", self.number)?;
        match &self.what {
            What::Opened => f.write_str("opened"),
            What::Recovered => f.write_str("recovered"),
            What::Done => f.write_str("done"),
            What::Asked => f.write_str("asked"),
            What::Held => f.write_str("held"),
            What::Refused => f.write_str("refused"),
            What::Used => f.write_str("used"),
            What::Serving => f.write_str("serving"),
            What::Metered(upto) => write!(f, "metered {upto}"),
            What::Left => f.write_str("left"),
            What::Chunk(upto) => write!(f, "chunk {upto}"),
            What::Withheld(charge) => write!(f, "withheld {charge}"),
            What::Captured(charge) => write!(f, "captured {charge}"),
            What::Released => f.write_str("released"),
            What::Broadcast(nonce) => write!(f, "broadcast {nonce}"),
            What::Settled(nonce) => write!(f, "settled {nonce}"),
            What::Rejected => f.write_str("rejected"),
            What::Sent => f.write_str("sent"),
            What::Owed => f.write_str("owed"),
            What::Seen(text) => write!(f, "seen {text}"),
            What::Trouble(text) => write!(f, "trouble {}", text.replace('\n', " ")),
        }
    }
}

impl FromStr for Event {
    type Err = ();

    /// Anything that is no line of ours is an error, and none of our business.
    fn from_str(line: &str) -> Result<Self, ()> {
        let (_, line) = line.split_once(MARK).ok_or(())?;
        let (number, rest) = line.split_once(' ').ok_or(())?;
        let (word, argument) = rest.split_once(' ').unwrap_or((rest, ""));
        let count = || argument.parse().map_err(|_| ());
        let what = match word {
            "opened" => What::Opened,
            "recovered" => What::Recovered,
            "done" => What::Done,
            "asked" => What::Asked,
            "held" => What::Held,
            "refused" => What::Refused,
            "used" => What::Used,
            "serving" => What::Serving,
            "metered" => What::Metered(count()?),
            "left" => What::Left,
            "chunk" => What::Chunk(count()?),
            "withheld" => What::Withheld(count()?),
            "captured" => What::Captured(count()?),
            "released" => What::Released,
            "broadcast" => What::Broadcast(count()?),
            "settled" => What::Settled(count()?),
            "rejected" => What::Rejected,
            "sent" => What::Sent,
            "owed" => What::Owed,
            "seen" => What::Seen(argument.to_owned()),
            "trouble" => What::Trouble(argument.to_owned()),
            _ => return Err(()),
        };
        Ok(Self { number: number.parse().map_err(|_| ())?, what })
    }
}

#[test]
fn a_line_says_what_happened() {
    let all = [
        What::Opened,
        What::Metered(10),
        What::Left,
        What::Chunk(10),
        What::Withheld(60),
        What::Captured(60),
        What::Broadcast(1),
        What::Settled(1),
        What::Trouble("no room".to_owned()),
    ];
    for what in all {
        let event = Event { number: 7, what };
        assert_eq!(format!("test child ... {event}").parse(), Ok(event));
    }
    assert_eq!("running 1 test".parse::<Event>(), Err(()));
}
