//! Multicall3: ours and the real one, case by case.

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::{SolCall, SolValue, sol};
use farebox_devnet::MULTICALL3_ADDRESS;
use farebox_testkit::evm::EvmKind;
use farebox_testkit::rpc::{CHAIN_ID, TOKEN};
use serde_json::json;

use crate::support::{End, Erc20, PAYER, SPENDER, Stage, Step, answers, check, silence, text};

const FAILED: &str = "Multicall3: call failed";
/// Reverts with `0xdeadbeef`.
const REFUSES: Address = Address::repeat_byte(0xe0);
/// Takes any ether, and answers how much it got and who sent it.
const TILL: Address = Address::repeat_byte(0xe1);
const CODE: [(Address, &str); 2] =
    [(REFUSES, "0x63deadbeef60e01b60005260046000fd"), (TILL, "0x346000523360205260406000f3")];

sol! {
    #[derive(Debug)]
    struct Call { address target; bytes callData; }
    #[derive(Debug)]
    struct Call3 { address target; bool allowFailure; bytes callData; }
    #[derive(Debug)]
    struct Call3Value { address target; bool allowFailure; uint256 value; bytes callData; }
    #[derive(Debug)]
    struct Result { bool success; bytes returnData; }

    #[derive(Debug)]
    interface Multicall3 {
        function aggregate(Call[] calls) external payable
            returns (uint256 blockNumber, bytes[] returnData);
        function tryAggregate(bool requireSuccess, Call[] calls) external payable
            returns (Result[] returnData);
        function blockAndAggregate(Call[] calls) external payable
            returns (uint256 blockNumber, bytes32 blockHash, Result[] returnData);
        function tryBlockAndAggregate(bool requireSuccess, Call[] calls) external payable
            returns (uint256 blockNumber, bytes32 blockHash, Result[] returnData);
        function aggregate3(Call3[] calls) external payable returns (Result[] returnData);
        function aggregate3Value(Call3Value[] calls) external payable
            returns (Result[] returnData);
        function getBlockHash(uint256 blockNumber) external view returns (bytes32 blockHash);
        function getBlockNumber() external view returns (uint256 blockNumber);
        function getCurrentBlockCoinbase() external view returns (address coinbase);
        function getCurrentBlockDifficulty() external view returns (uint256 difficulty);
        function getCurrentBlockGasLimit() external view returns (uint256 gaslimit);
        function getCurrentBlockTimestamp() external view returns (uint256 timestamp);
        function getEthBalance(address addr) external view returns (uint256 balance);
        function getLastBlockHash() external view returns (bytes32 blockHash);
        function getBasefee() external view returns (uint256 basefee);
        function getChainId() external view returns (uint256 chainid);
    }
}

fn step(label: &str, call: &impl SolCall, end: End) -> Step {
    Step::new(label, SPENDER, MULTICALL3_ADDRESS, call.abi_encode().into(), end)
}

fn name() -> Bytes {
    Erc20::nameCall {}.abi_encode().into()
}

fn call(target: Address, data: impl Into<Bytes>) -> Call {
    Call { target, callData: data.into() }
}

fn call3(target: Address, data: impl Into<Bytes>, allow_failure: bool) -> Call3 {
    Call3 { target, allowFailure: allow_failure, callData: data.into() }
}

fn got(answer: &impl SolValue) -> Result {
    Result { success: true, returnData: answer.abi_encode().into() }
}

fn refused() -> Result {
    Result { success: false, returnData: Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef]) }
}

fn nothing() -> Result {
    Result { success: true, returnData: Bytes::new() }
}

fn list(results: Vec<Result>) -> End {
    answers(&results)
}

#[tokio::test]
async fn failures_are_told_or_stop_everything() {
    let usdc = || "USDC".to_owned();
    let nobody = Address::repeat_byte(0xee);
    let transfer = Erc20::approveCall { spender: PAYER.address(), value: U256::from(3) };
    let transfer = Bytes::from(transfer.abi_encode());
    let try_all =
        |required, calls| Multicall3::tryAggregateCall { requireSuccess: required, calls };
    let all3 = |calls| Multicall3::aggregate3Call { calls };
    let mixed = || vec![call(TOKEN, name()), call(REFUSES, Bytes::new()), call(nobody, name())];
    let mixed3 = |allowed| {
        vec![
            call3(TOKEN, name(), false),
            call3(REFUSES, Bytes::new(), allowed),
            call3(nobody, name(), false),
        ]
    };
    let told = || list(vec![got(&usdc()), refused(), nothing()]);
    let block = |required| Multicall3::tryBlockAndAggregateCall {
        requireSuccess: required,
        calls: mixed(),
    };
    let stop = || text(FAILED);
    let script = [
        step("failures told", &try_all(false, mixed()), told()),
        step("failures forbidden", &try_all(true, mixed()), stop()),
        step("no failures", &try_all(true, vec![call(TOKEN, name())]), list(vec![got(&usdc())])),
        step("each for itself", &all3(mixed3(true)), told()),
        step("this one may not", &all3(mixed3(false)), stop()),
        step("all or nothing", &Multicall3::aggregateCall { calls: mixed() }, stop()),
        step("with the block", &Multicall3::blockAndAggregateCall { calls: mixed() }, stop()),
        step("with the block if", &block(true), stop()),
        step("none", &try_all(true, Vec::new()), list(Vec::new())),
        step("none of three", &all3(Vec::new()), list(Vec::new())),
        // The token sees Multicall3 as its caller: the events say so.
        step("a write", &all3(vec![call3(TOKEN, transfer, false)]), list(vec![got(&true)])),
    ];
    check(&CODE, &script).await;
}

#[tokio::test]
async fn ether_goes_where_it_is_sent() {
    let pay = |value: u64, target, allow_failure| Call3Value {
        target,
        allowFailure: allow_failure,
        value: U256::from(value),
        callData: Bytes::new(),
    };
    let all = |calls| Multicall3::aggregate3ValueCall { calls };
    let paid = |value: u64| got(&(U256::from(value), MULTICALL3_ADDRESS));
    let mismatch = || text("Multicall3: value mismatch");
    // The real one has an empty word after the text here, and only here.
    let End::Reverts(reason) = text(FAILED) else { panic!("a text is a revert") };
    let failed = || End::Reverts([&reason[..], &[0; 32]].concat().into());
    let poor = Call3Value { value: U256::MAX, ..pay(0, TILL, true) };
    let script = [
        step(
            "three and four",
            &all(vec![pay(3, TILL, false), pay(4, TILL, false)]),
            list(vec![paid(3), paid(4)]),
        )
        .paying(7),
        step("a rest", &all(vec![pay(3, TILL, false)]), mismatch()).paying(4),
        step("too much", &all(vec![pay(3, TILL, false)]), failed()).paying(2),
        step("too much, which may fail", &all(vec![pay(3, TILL, true)]), mismatch()).paying(2),
        step(
            "what a failed call was to get stays behind",
            &all(vec![pay(3, REFUSES, true)]),
            list(vec![refused()]),
        )
        .paying(3),
        step("and counts for nothing", &all(vec![pay(3, TILL, false)]), mismatch()),
        step("a failure", &all(vec![pay(0, REFUSES, false)]), failed()),
        step("more than there is", &all(vec![poor]), mismatch()),
        step("none", &all(Vec::new()), list(Vec::new())),
        step(
            "ether for calls without any",
            &Multicall3::aggregate3Call { calls: vec![call3(TILL, Bytes::new(), false)] },
            list(vec![paid(0)]),
        )
        .paying(1),
        step("ether for a question", &Multicall3::getChainIdCall {}, silence()).paying(1),
        Step::new("no function", SPENDER, MULTICALL3_ADDRESS, Bytes::new(), silence()),
    ];
    check(&CODE, &script).await;
}

/// Asks Multicall3 for several values in one call, so that all are of the same block.
async fn questions(stage: &Stage, calls: Vec<Call>) -> (U256, Vec<Bytes>) {
    let ask = step("ask", &Multicall3::aggregateCall { calls }, End::Done);
    let answer = stage.simulate(&ask).await.unwrap();
    let answer = Multicall3::aggregateCall::abi_decode_returns(&answer).unwrap();
    (answer.blockNumber, answer.returnData)
}

#[tokio::test]
async fn the_getters_tell_of_the_block_and_the_chain() {
    for kind in EvmKind::ALL {
        let stage = Stage::start(kind, &[]).await;
        let own = |data: Vec<u8>| call(MULTICALL3_ADDRESS, data);
        let latest = stage.rpc("eth_getBlockByNumber", json!(["latest", false])).await.unwrap();
        let field = |name: &str| serde_json::from_value::<U256>(latest[name].clone()).unwrap();
        let balance = stage.rpc("eth_getBalance", json!([PAYER.address(), "latest"])).await;
        let balance: U256 = serde_json::from_value(balance.unwrap()).unwrap();
        let before = field("number") - U256::ONE;
        let (number, answers) = questions(
            &stage,
            vec![
                own(Multicall3::getBlockNumberCall {}.abi_encode()),
                own(Multicall3::getChainIdCall {}.abi_encode()),
                own(Multicall3::getCurrentBlockGasLimitCall {}.abi_encode()),
                own(Multicall3::getEthBalanceCall { addr: PAYER.address() }.abi_encode()),
                own(Multicall3::getBlockHashCall { blockNumber: before }.abi_encode()),
                own(Multicall3::getBlockHashCall { blockNumber: U256::MAX }.abi_encode()),
                own(Multicall3::getCurrentBlockTimestampCall {}.abi_encode()),
                own(Multicall3::getBasefeeCall {}.abi_encode()),
                own(Multicall3::getCurrentBlockCoinbaseCall {}.abi_encode()),
                own(Multicall3::getCurrentBlockDifficultyCall {}.abi_encode()),
                own(Multicall3::getLastBlockHashCall {}.abi_encode()),
            ],
        )
        .await;
        let word = |index: usize| U256::from_be_slice(&answers[index]);
        assert!(answers.iter().all(|answer| answer.len() == 32), "{kind:?}: {answers:?}");
        assert_eq!(word(0), number, "{kind:?}");
        assert_eq!(word(1), U256::from(CHAIN_ID), "{kind:?}");
        assert_eq!(word(2), field("gasLimit"), "{kind:?}");
        assert_eq!(word(3), balance, "{kind:?}");
        assert_eq!(word(4), field("parentHash"), "{kind:?}");
        assert_eq!(word(5), U256::ZERO, "{kind:?}");
        assert!(word(6) >= field("timestamp"), "{kind:?}");
        // A call is executed in the latest block or in the one after it; nodes differ.
        let last = if number == field("number") { field("parentHash") } else { field("hash") };
        assert_eq!(word(10), last, "{kind:?}: {number} after {}", latest["number"]);

        let block = Multicall3::blockAndAggregateCall { calls: Vec::new() };
        let answer = stage.simulate(&step("block", &block, End::Done)).await.unwrap();
        let answer = Multicall3::blockAndAggregateCall::abi_decode_returns(&answer).unwrap();
        assert_eq!(answer.blockNumber, number, "{kind:?}");
        assert!(answer.blockHash.is_zero(), "{kind:?}: a block does not know its own hash");
        assert_eq!(answer.returnData.len(), 0, "{kind:?}");
    }
}
