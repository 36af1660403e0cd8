//! What a client reads: the first block, blocks by every tag, transactions, receipts.

use alloy_consensus::{Header, TxEip1559, TxEnvelope, proofs::calculate_transaction_root};
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use alloy_rpc_types_eth::{Block, Transaction};
use alloy_sol_types::SolCall;
use farebox_devnet::{DEV_ACCOUNTS, INITIAL_USDC, INITIAL_WEI, Mining, TOKEN_ADDRESS};
use serde_json::{Value, json};

use crate::support::{Key, Net, Usdc, tx_1559};

#[tokio::test]
async fn the_first_block_funds_every_account() {
    let net = Net::instant().await;
    assert_eq!(net.number().await, 0);
    for account in &DEV_ACCOUNTS {
        assert_eq!(net.balance(account.address).await, INITIAL_WEI);
        assert_eq!(net.usdc(account.address).await, U256::from(INITIAL_USDC));
        assert_eq!(net.nonce(account.address).await, 0);
    }
    assert_eq!(net.read(Usdc::totalSupplyCall {}).await, U256::from(INITIAL_USDC * 10));
    let accounts: Vec<Address> = net.ok("eth_accounts", json!([])).await;
    assert_eq!(accounts, DEV_ACCOUNTS.map(|account| account.address));
}

#[tokio::test]
async fn constants_are_as_clients_expect() {
    let net = Net::instant().await;
    for (method, expected) in [
        ("eth_chainId", json!("0x14a34")),
        ("net_version", json!("84532")),
        ("eth_syncing", json!(false)),
        ("net_listening", json!(true)),
        ("net_peerCount", json!("0x0")),
    ] {
        assert_eq!(net.ok::<Value>(method, json!([])).await, expected, "{method}");
    }
    let version: String = net.ok("web3_clientVersion", json!([])).await;
    assert!(version.starts_with("farebox-devnet/v"), "{version}");
    let hash: B256 = net.ok("web3_sha3", json!(["0x68656c6c6f"])).await;
    assert_eq!(hash, alloy_primitives::keccak256("hello"));
}

#[tokio::test]
async fn a_block_is_the_same_by_every_name_and_its_hash_covers_it() {
    let net = Net::instant().await;
    net.transact(Key::dev(1), Usdc::transferCall { to: Address::repeat_byte(7), value: U256::ONE })
        .await;
    let latest: Block<Transaction> = net.ok("eth_getBlockByNumber", json!(["latest", true])).await;
    for tag in [json!("safe"), json!("finalized"), json!("0x1"), json!(BlockNumberOrTag::Number(1))]
    {
        assert_eq!(
            net.ok::<Block<Transaction>>("eth_getBlockByNumber", json!([tag, true])).await,
            latest
        );
    }
    let by_hash: Block<Transaction> =
        net.ok("eth_getBlockByHash", json!([latest.header.hash, true])).await;
    assert_eq!(by_hash, latest);

    let header: &Header = &latest.header.inner;
    assert_eq!(header.hash_slow(), latest.header.hash);
    let transactions: Vec<&TxEnvelope> =
        latest.transactions.txns().map(|tx| tx.inner.inner()).collect();
    assert_eq!(calculate_transaction_root(&transactions), header.transactions_root);
    let parent: Block = net.ok("eth_getBlockByNumber", json!(["earliest", false])).await;
    assert_eq!((header.parent_hash, header.number), (parent.header.hash, 1));
    assert_eq!(parent.header.inner.hash_slow(), parent.header.hash);
}

#[tokio::test]
async fn a_receipt_agrees_with_its_block_and_its_transaction() {
    let net = Net::instant().await;
    let to = Address::repeat_byte(7);
    let value = U256::from(1_234);
    let receipt = net.transact(Key::dev(1), Usdc::transferCall { to, value }).await;
    let block: Block<Transaction> =
        net.ok("eth_getBlockByHash", json!([receipt.block_hash, true])).await;
    let transactions: Vec<&Transaction> = block.transactions.txns().collect();
    let [tx] = transactions.as_slice() else { panic!("{} transactions", transactions.len()) };

    assert!(receipt.status());
    assert_eq!((receipt.from, receipt.to), (Key::dev(1).address(), Some(TOKEN_ADDRESS)));
    assert_eq!(*tx.inner.inner().tx_hash(), receipt.transaction_hash);
    assert_eq!(block.header.inner.gas_used, receipt.gas_used);
    assert_eq!(block.header.inner.logs_bloom, *receipt.inner.logs_bloom());
    let base_fee = u128::from(block.header.inner.base_fee_per_gas.unwrap());
    assert_eq!(receipt.effective_gas_price, base_fee + 1_000_000_000);
    assert_eq!(tx.effective_gas_price, Some(receipt.effective_gas_price));

    let [log] = receipt.inner.logs() else { panic!("{:?}", receipt.inner.logs()) };
    assert_eq!((log.log_index, log.transaction_index, log.removed), (Some(0), Some(0), false));
    assert_eq!(log.block_hash, receipt.block_hash);
    let event = log.log_decode::<Usdc::Transfer>().unwrap();
    assert_eq!((event.inner.from, event.inner.to, event.inner.value), (receipt.from, to, value));
    let all: Vec<Value> = net.ok("eth_getBlockReceipts", json!(["latest"])).await;
    assert_eq!(all[0]["transactionHash"], json!(receipt.transaction_hash));
}

#[tokio::test]
async fn a_waiting_transaction_shows_without_a_block() {
    let net = Net::mining(Mining::Manual).await;
    let to = Address::repeat_byte(7);
    let raw =
        Key::dev(1).sign_tx(TxEip1559 { to: TxKind::Call(to), value: U256::from(5), ..tx_1559() });
    let hash = net.send_raw(raw.clone()).await.unwrap();

    let tx: Value = net.ok("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!((&tx["blockHash"], &tx["blockNumber"]), (&Value::Null, &Value::Null));
    assert_eq!(net.find_receipt(hash).await, None);
    assert_eq!(net.ok::<Bytes>("eth_getRawTransactionByHash", json!([hash])).await, raw);
    let pending: Value = net.ok("eth_getBlockByNumber", json!(["pending", false])).await;
    assert_eq!((&pending["hash"], &pending["transactions"]), (&Value::Null, &json!([hash])));
    for (tag, expected) in [("pending", 5), ("latest", 0)] {
        let balance: U256 = net.ok("eth_getBalance", json!([to, tag])).await;
        assert_eq!(balance, U256::from(expected), "{tag}");
    }
    for (tag, expected) in [("pending", 1), ("latest", 0)] {
        let params = json!([Key::dev(1).address(), tag]);
        assert_eq!(net.ok::<U64>("eth_getTransactionCount", params).await, U64::from(expected));
    }
    net.devnet.mine();
    let tx: Value = net.ok("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(tx["blockNumber"], json!("0x1"));
    assert!(net.find_receipt(hash).await.unwrap().status());
}

#[tokio::test]
async fn what_does_not_exist_is_null() {
    let net = Net::instant().await;
    let nowhere = B256::repeat_byte(1);
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0xffff", false])),
        ("eth_getBlockByHash", json!([nowhere, false])),
        ("eth_getBlockReceipts", json!(["0xffff"])),
        ("eth_getTransactionByHash", json!([nowhere])),
        ("eth_getTransactionReceipt", json!([nowhere])),
        ("eth_getRawTransactionByHash", json!([nowhere])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", "0x0"])),
        ("eth_getBlockTransactionCountByHash", json!([nowhere])),
    ] {
        assert_eq!(net.ok::<Value>(method, params).await, Value::Null, "{method}");
    }
    for method in ["eth_getBalance", "eth_getCode", "eth_getTransactionCount"] {
        let refusal = net.refused(method, json!([Address::ZERO, "0xffff"])).await;
        assert_eq!((refusal.code, refusal.message.as_str()), (-32000, "header not found"));
    }
}

#[tokio::test]
async fn old_states_are_kept_for_256_blocks() {
    let net = Net::instant().await;
    let to = Address::repeat_byte(7);
    for value in [1_u64, 2] {
        net.transact(Key::dev(1), Usdc::transferCall { to, value: U256::from(value) }).await;
    }
    let call = json!({
        "to": TOKEN_ADDRESS,
        "data": Bytes::from(Usdc::balanceOfCall { account: to }.abi_encode()),
    });
    for (block, expected) in [("0x0", 0), ("0x1", 1), ("0x2", 3), ("latest", 3)] {
        let balance: U256 = net.ok("eth_call", json!([call, block])).await;
        assert_eq!(balance, U256::from(expected), "at block {block}");
    }
    net.ok::<Value>("anvil_mine", json!([256])).await;
    assert_eq!(net.ok::<U256>("eth_call", json!([call, "0x2"])).await, U256::from(3));
    let refusal = net.refused("eth_call", json!([call, "0x1"])).await;
    assert!(refusal.message.contains("not kept"), "{refusal:?}");
}
