//! `farebox pay`: one request, in curl's words, paid for within a cap.
//!
//! The answer goes to standard output as it arrives, what was paid to standard error. The exit code
//! says how it ended, so that a script need not read either.

mod options;
mod report;
mod request;

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use farebox_agent::{
    Outcome, PaidResponse, PayError, PayingClient, Payment, Preview, WalletError, preview,
};
use reqwest::Response;
use url::Url;

use self::options::{BadPolicy, KeyArgs, NoPassword, PolicyArgs};
use self::report::Report;
use self::request::{BadRequest, RequestArgs};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may fall silent; models think for minutes.
const SILENCE_MAX: Duration = Duration::from_mins(10);

/// What the exit codes mean; shown below the help.
const AFTER_HELP: &str = "\
The answer goes to standard output as it arrives, what was paid to standard error.

  farebox pay --key-file agent.key -d '{\"model\":\"m\",\"messages\":[]}' --json \\
      --max-payment 0.02 https://api.example.com/v1/chat/completions

Exit codes:
  0  answered, and paid for if that was asked
  1  failed before anything was signed, or the payment never left this machine
  2  the command line was wrong
  3  refused by your caps, networks or tokens: nothing was signed
  4  the seller refused the payment, and says that it charged nothing
  5  the payment was sent and nobody can say whether it was charged: do not just run it again
  6  the answer is an HTTP error (400 or above)
  7  paid for, and the answer broke off or could not be written";

/// Arguments of `pay`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct PayArgs {
    /// What to ask for; http or https.
    #[arg(value_name = "URL")]
    url: Url,
    #[command(flatten)]
    request: RequestArgs,
    /// Write the answer's body to this file.
    #[arg(short, long, value_name = "FILE", help_heading = "Answer")]
    output: Option<PathBuf>,
    /// Write the answer's status and headers too.
    #[arg(short, long, help_heading = "Answer")]
    include: bool,
    /// Give up on each sending after so many seconds.
    #[arg(short, long, value_name = "S", help_heading = "Answer")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_time: Option<u64>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Say what would be paid and why, and pay nothing. Needs no key, but only with one is the
    /// allowance known that upto and Permit2 take.
    #[arg(long, help_heading = "Payment")]
    dry_run: bool,
    #[command(flatten)]
    key: KeyArgs,
}

/// Where a command writes.
pub(crate) struct Out<'a> {
    /// The answer.
    pub(crate) answer: &'a mut (dyn Write + Send),
    /// Everything else.
    pub(crate) report: &'a mut (dyn Write + Send),
}

/// How it ended; the numbers are those of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayExit {
    /// Answered.
    Answered,
    /// Failed before anything was signed.
    Failed,
    /// The command line was wrong.
    Usage,
    /// Refused by the caller's own caps.
    Refused,
    /// Refused by the seller, nothing charged.
    Rejected,
    /// Perhaps charged.
    Unknown,
    /// An HTTP error.
    HttpError,
    /// Paid for and not received whole.
    AnswerLost,
}

impl PayExit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Answered => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Rejected => 4,
            Self::Unknown => 5,
            Self::HttpError => 6,
            Self::AnswerLost => 7,
        }
    }
}

impl From<PayExit> for ExitCode {
    fn from(exit: PayExit) -> Self {
        Self::from(exit.code())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("a key is needed to pay: give --key-file, --keystore or --key-env (or --dry-run)")]
    NoKey,
    #[error(transparent)]
    Request(#[from] BadRequest),
    #[error(transparent)]
    Policy(#[from] BadPolicy),
    #[error(transparent)]
    Wallet(#[from] WalletError),
    #[error(transparent)]
    Password(#[from] NoPassword),
    #[error("the HTTP client could not be built")]
    Client(#[source] reqwest::Error),
    #[error("cannot write {}", path.display())]
    Output {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Pay(#[from] PayError),
}

impl Failure {
    fn exit(&self) -> PayExit {
        match self {
            Self::NoKey | Self::Policy(_) => PayExit::Usage,
            Self::Request(error) if error.is_usage() => PayExit::Usage,
            Self::Request(_)
            | Self::Wallet(_)
            | Self::Password(_)
            | Self::Client(_)
            | Self::Output { .. } => PayExit::Failed,
            Self::Pay(error) => exit_of(error),
        }
    }
}

fn exit_of(error: &PayError) -> PayExit {
    match error {
        PayError::Unreachable(_)
        | PayError::NotRepeatable
        | PayError::CarriesPayment
        | PayError::Sign(_)
        | PayError::NotSent(_) => PayExit::Failed,
        PayError::PlainHttp { .. }
        | PayError::Redirected { .. }
        | PayError::Challenge(_)
        | PayError::Refused(_) => PayExit::Refused,
        PayError::NoAnswer { payment, .. } => match payment.outcome {
            Outcome::Paid { .. } => PayExit::AnswerLost,
            Outcome::NotCharged { .. } => PayExit::Rejected,
            Outcome::Accepted | Outcome::Unknown { .. } => PayExit::Unknown,
        },
    }
}

/// Asks, pays if need be, and writes the answer.
pub(crate) async fn run(args: &PayArgs, out: Out<'_>) -> PayExit {
    let mut report = Report::new(out.report);
    match ask(args, out.answer, &mut report).await {
        Ok(exit) => exit,
        Err(failure) => {
            if let Failure::Pay(error) = &failure {
                report.payment_error(error);
            } else {
                report.error(&failure);
            }
            failure.exit()
        }
    }
}

async fn ask(
    args: &PayArgs,
    answer: &mut (dyn Write + Send),
    report: &mut Report<'_>,
) -> Result<PayExit, Failure> {
    let request = args.request.build(&args.url)?;
    let policy = args.policy.build()?;
    let mut http = reqwest::Client::builder()
        .user_agent(concat!("farebox/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_MAX);
    if let Some(seconds) = args.max_time {
        http = http.timeout(Duration::from_secs(seconds));
    }
    if args.dry_run {
        // A key only tells whose allowance is looked at.
        let payer = args.key.wallet()?.map(|it| it.address());
        return match preview(http, policy, request, payer).await? {
            Preview::Free(response) => {
                report.line("nothing to pay: the answer is free");
                Ok(exit_of_status(&response))
            }
            Preview::WouldPay(choice) => {
                report.would_pay(&choice);
                Ok(PayExit::Answered)
            }
        };
    }
    let wallet = args.key.wallet()?.ok_or(Failure::NoKey)?;
    // Before anything is paid: an answer that nobody can keep is not worth buying.
    let mut file = args.output.as_ref().map(File::create).transpose().map_err(|source| {
        Failure::Output { path: args.output.clone().unwrap_or_default(), source }
    })?;
    let client = PayingClient::new(http, wallet, policy).map_err(Failure::Client)?;
    let PaidResponse { response, payment } = client.execute(request).await?;
    let to: &mut (dyn Write + Send) = match &mut file {
        Some(file) => file,
        None => answer,
    };
    let status = exit_of_status(&response);
    let written = write_answer(response, args.include, to).await;
    match &written {
        // On a terminal the report would go on in the answer's last line.
        Ok(LineEnd::No) if file.is_none() => report.line(""),
        Ok(_) => {}
        Err(error) => report.error(error.as_ref()),
    }
    let Some(payment) = payment else {
        return Ok(if written.is_ok() { status } else { PayExit::Failed });
    };
    report.payment(&payment, client.reconcile().await);
    Ok(match (exit_of_payment(&payment), written) {
        (PayExit::Answered, Ok(_)) => status,
        (PayExit::Answered, Err(_)) => PayExit::AnswerLost,
        (exit, _) => exit,
    })
}

fn exit_of_status(response: &Response) -> PayExit {
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    if failed { PayExit::HttpError } else { PayExit::Answered }
}

/// A receipt inside the stream that does not fit makes a payment doubtful after the fact.
fn exit_of_payment(payment: &Payment) -> PayExit {
    match (&payment.outcome, payment.stream_receipt()) {
        (Outcome::Unknown { .. }, _) | (Outcome::Accepted, Some(Err(_))) => PayExit::Unknown,
        (Outcome::NotCharged { .. }, _) => PayExit::Rejected,
        (Outcome::Paid { .. } | Outcome::Accepted, _) => PayExit::Answered,
    }
}

/// Whether an answer ended with its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Yes,
    No,
}

/// Writes the answer as it arrives.
async fn write_answer(
    mut response: Response,
    include: bool,
    to: &mut (dyn Write + Send),
) -> Result<LineEnd, Box<dyn Error + Send + Sync>> {
    if include {
        writeln!(to, "{:?} {}", response.version(), response.status())?;
        for (name, value) in response.headers() {
            write!(to, "{name}: ")?;
            to.write_all(value.as_bytes())?;
            writeln!(to)?;
        }
        writeln!(to)?;
    }
    let mut last = None;
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        to.write_all(&chunk)?;
        to.flush()?;
        last = chunk.last().copied().or(last);
    }
    Ok(if last.is_none_or(|it| it == b'\n') { LineEnd::Yes } else { LineEnd::No })
}

#[cfg(test)]
mod tests;
