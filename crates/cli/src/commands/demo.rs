//! `farebox demo`: everything at once, on this machine, offline.

use crate::args::{DemoArgs, Report as Format};
use crate::demo::{Narrator, Place, Report, Stage, play};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Stream};
use crate::shutdown::{StopSignals, stopped_early};

/// Sets the stage, plays, and takes everything down again, whatever came of it.
async fn perform(args: &DemoArgs, narrator: &Narrator<'_>) -> Result<Report, Failure> {
    let stage = Stage::set(Place::make(args.data_dir.as_deref())?).await?;
    for line in stage.introduction() {
        narrator.say(&line);
    }
    let played = play(&stage, narrator).await;
    let struck = stage.strike().await;
    let report = played?;
    struck.map(|()| report)
}

/// Plays the demo; fails if its sums are not equal.
pub(crate) async fn run(args: &DemoArgs, output: &Output) -> Result<Exit, Failure> {
    let progress = match args.report() {
        Format::Text => Stream::Result,
        Format::Json => Stream::Progress,
    };
    let narrator = Narrator::new(output, progress);
    narrator.say("setting the stage: a chain, a facilitator, a gateway, a model, an agent …");
    let mut signals = StopSignals::listen()?;
    let report = tokio::select! {
        report = perform(args, &narrator) => report?,
        // What was temporary goes with the stage.
        signal = signals.next() => return Ok(stopped_early(signal)),
    };
    match args.report() {
        Format::Text => output.result(format!("\n{}", report.text(output.paint(Stream::Result)))),
        Format::Json => output.result(serde_json::to_string_pretty(&report).map_err(|error| {
            Failure::new("the report could not be written as JSON").because(error)
        })?),
    }
    Ok(if report.adds_up() { Exit::Done } else { Exit::Failed })
}
