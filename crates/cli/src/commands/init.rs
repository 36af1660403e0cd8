//! `farebox init`: a configuration to begin with, and a key that settles.

use std::fs;
use std::io;
use std::path::Path;

use farebox_chains::{EvmAddress, EvmKey};

use crate::args::InitArgs;
use crate::failure::{Exit, Failure};
use crate::files::{Mode, write_new};
use crate::output::{Output, Stream};

/// What is written, but for the account that is paid.
const TEMPLATE: &str = include_str!("../../config/example.toml");
/// Stands in the template for that account.
const PAY_TO: &str = "0xYourAccount";
const CONFIG_FILE: &str = "farebox.toml";
const KEY_FILE: &str = "settler.key";

/// Writes both files, or neither.
pub(crate) fn run(args: &InitArgs, output: &Output) -> Result<Exit, Failure> {
    let config = args.dir.join(CONFIG_FILE);
    let key = args.dir.join(KEY_FILE);
    for file in [&config, &key] {
        if file.symlink_metadata().is_ok() {
            return Err(Failure::new(format!("{} is there already", file.display()))
                .help("`farebox init` overwrites nothing: choose another directory")
                .help("or move the file away, if you are sure that it is not needed"));
        }
    }
    let failed = |what: &Path, error: io::Error| {
        Failure::new(format!("{} cannot be written", what.display())).because(error)
    };
    fs::create_dir_all(&args.dir).map_err(|error| failed(&args.dir, error))?;
    let settler = write_key(&key).map_err(|error| failed(&key, error))?;
    write_new(&config, Mode::Public, &TEMPLATE.replace(PAY_TO, &settler.to_string()))
        .map_err(|error| failed(&config, error))?;
    output.result(next_steps(output, &config, &key, settler));
    Ok(Exit::Done)
}

/// Makes a key and writes it, readable by the owner alone.
fn write_key(file: &Path) -> io::Result<EvmAddress> {
    let mut bytes = [0; 32];
    // A random number is no key with a chance of 2⁻¹²⁷; then the next one is.
    let key = loop {
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        if let Ok(key) = EvmKey::from_bytes(bytes) {
            break key;
        }
    };
    write_new(file, Mode::Private, &format!("0x{}\n", hex::encode(bytes)))?;
    Ok(key.address())
}

fn next_steps(output: &Output, config: &Path, key: &Path, settler: EvmAddress) -> String {
    let paint = output.paint(Stream::Result);
    let (config, key) = (config.display(), key.display());
    format!(
        "Wrote {config}\n\
         Wrote {key}  (the settler {settler}; back it up, show it to nobody)\n\
         \n\
         {next}\n  \
         1. Edit {config}: your upstream, your prices, and the account that is paid\n     \
         (`pay_to`; to begin with it is the settler's own).\n  \
         2. Send a little gas money (ETH on Base Sepolia, from a faucet) to {settler}.\n  \
         3. farebox config check {config} --online\n  \
         4. farebox serve --config {config}",
        next = paint.bold("Next:"),
    )
}
