//! Every source of a key, every refusal, and that no key is ever printed.

use std::os::unix::fs::OpenOptionsExt as _;

use super::*;

/// The first account of the well-known test mnemonic; its digits must never be shown.
const CANARY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// A vector of the Web3 Secret Storage Definition, and a keystore that eth-account wrote.
const VECTOR_PASSWORD: &str = "testpassword";
const VECTOR_ADDRESS: &str = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b";
const SCRYPT: &str = r#"{"address":"f39Fd6e51aad88F6F4ce6aB8827279cffFb92266","crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"0707ae9129410a081264707546fe547c"},"ciphertext":"bd3cc5f364ccc1eca92712d021cc1f4c44f5e43ef86025a5fc17c8c968d3506d","kdf":"scrypt","kdfparams":{"dklen":32,"n":4096,"r":8,"p":1,"salt":"fb6a78b403466f9fb0cd9ce052df8c3d"},"mac":"7bce73825c0deaced60190b8165d9b66a67415a039c6d5efbc0ec98eb5efdcd3"},"id":"1db0b52d-7f77-455c-9c43-85884728b43d","version":3}"#;
const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;

fn file(directory: &Path, text: &str, mode: u32) -> PathBuf {
    use std::io::Write as _;
    let path = directory.join("key");
    drop(fs::remove_file(&path));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Everything that a wallet or its error can print.
fn printed(outcome: &Result<Wallet, WalletError>) -> String {
    match outcome {
        Ok(wallet) => format!("{wallet:?} {}", wallet.address()),
        Err(error) => {
            let first: &dyn std::error::Error = error;
            let causes = std::iter::successors(Some(first), |it| it.source());
            causes.map(|it| format!("{it} {it:?}")).collect::<Vec<_>>().join(" ")
        }
    }
}

#[track_caller]
fn check(outcome: Result<Wallet, WalletError>, expected: &str) {
    let text = printed(&outcome);
    assert!(text.contains(expected), "{text}");
    let secret = CANARY.split_at(16).0;
    assert!(!text.to_lowercase().contains(secret), "a key was printed: {text}");
}

#[test]
fn a23_key_files() {
    let directory = tempfile::tempdir().unwrap();
    let check_file = |text: &str, mode, expected: &str| {
        check(Wallet::from_key_file(&file(directory.path(), text, mode)), expected);
    };
    check_file(CANARY, 0o600, ADDRESS);
    check_file(CANARY, 0o400, ADDRESS);
    check_file(&format!("0x{CANARY}\n"), 0o600, ADDRESS);
    check_file(CANARY, 0o640, "(mode 0640): expected mode 0600");
    check_file(CANARY, 0o604, "(mode 0604): expected mode 0600");
    check_file(CANARY, 0o610, "(mode 0610): expected mode 0600");
    check_file(&CANARY.replace("ff80", "ff8"), 0o600, "expected 64 hexadecimal digits");
    check_file(&CANARY.replace("ff80", "ff8g"), 0o600, "expected 64 hexadecimal digits");
    check_file(&"0".repeat(64), 0o600, "not a secp256k1 key");
    check_file(&CANARY.repeat(2_000), 0o600, "expected a file of at most");
    check(Wallet::from_key_file(&directory.path().join("none")), "cannot read");
}

#[test]
fn a23_keys_from_the_environment() {
    check(Wallet::from_env("FAREBOX_NO_SUCH_KEY"), "FAREBOX_NO_SUCH_KEY is not set");
    // Whatever PATH is, it is no key, and it is not printed.
    let text = printed(&Wallet::from_env("PATH"));
    assert!(text.contains("$PATH: expected 64 hexadecimal digits"), "{text}");
    assert!(!text.contains("/bin"), "{text}");
    check(Wallet::from_hex(&SecretString::from(CANARY)), ADDRESS);
    check(Wallet::from_hex(&SecretString::from(format!("{CANARY}00"))), "expected 64");
}

#[test]
fn keystores() {
    let directory = tempfile::tempdir().unwrap();
    let check_store = |text: &str, password: &str, expected: &str| {
        let path = file(directory.path(), text, 0o644);
        check(Wallet::from_keystore(&path, &SecretString::from(password)), expected);
    };
    check_store(PBKDF2, VECTOR_PASSWORD, VECTOR_ADDRESS);
    check_store(SCRYPT, VECTOR_PASSWORD, ADDRESS);
    check_store(PBKDF2, "wrong", "wrong password");
    check_store("{}", VECTOR_PASSWORD, "expected a Web3 version 3 keystore");
    check_store(&PBKDF2.replace("\"version\":3", "\"version\":1"), VECTOR_PASSWORD, "`version` 3");
    // Each of these would make the keystore crate panic, or work for ever.
    check_store(&PBKDF2.replace("9735c1e6", ""), VECTOR_PASSWORD, "an `iv` of 16 bytes");
    check_store(&PBKDF2.replace("\"dklen\":32", "\"dklen\":8"), VECTOR_PASSWORD, "a `dklen` of 32");
    check_store(
        &SCRYPT.replace("\"n\":4096", "\"n\":1073741824"),
        VECTOR_PASSWORD,
        "sensible costs",
    );
    check_store(&SCRYPT.replace("\"n\":4096", "\"n\":4097"), VECTOR_PASSWORD, "sensible costs");
    check_store(&PBKDF2.replace("8af5f869aa46", ""), VECTOR_PASSWORD, "32 bytes");
}
