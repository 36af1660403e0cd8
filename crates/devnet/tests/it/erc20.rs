//! The token as a plain ERC-20, and who may issue it.

use alloy_primitives::{Address, U256, keccak256};
use alloy_sol_types::SolValue;
use serde_json::{Value, json};

use crate::support::{Key, Net, Usdc, domain};

const TO: Address = Address::repeat_byte(0x77);

#[tokio::test]
async fn it_calls_itself_what_usdc_does() {
    let net = Net::instant().await;
    assert_eq!(net.read(Usdc::nameCall {}).await, "USDC");
    assert_eq!(net.read(Usdc::versionCall {}).await, "2");
    assert_eq!(net.read(Usdc::symbolCall {}).await, "USDC");
    assert_eq!(net.read(Usdc::decimalsCall {}).await, 6);
    assert_eq!(net.read(Usdc::DOMAIN_SEPARATORCall {}).await, domain().separator());
}

#[tokio::test]
async fn its_type_hashes_are_those_of_the_eips() {
    let net = Net::instant().await;
    let fields = "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce";
    assert_eq!(
        net.read(Usdc::TRANSFER_WITH_AUTHORIZATION_TYPEHASHCall {}).await,
        keccak256(format!("TransferWithAuthorization({fields})"))
    );
    assert_eq!(
        net.read(Usdc::RECEIVE_WITH_AUTHORIZATION_TYPEHASHCall {}).await,
        keccak256(format!("ReceiveWithAuthorization({fields})"))
    );
    assert_eq!(
        net.read(Usdc::CANCEL_AUTHORIZATION_TYPEHASHCall {}).await,
        keccak256("CancelAuthorization(address authorizer,bytes32 nonce)")
    );
    assert_eq!(
        net.read(Usdc::PERMIT_TYPEHASHCall {}).await,
        keccak256(
            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
        )
    );
}

#[tokio::test]
async fn transfers_move_what_is_there_and_no_more() {
    let net = Net::instant().await;
    let value = U256::from(9);
    assert!(net.transact(Key::dev(1), Usdc::transferCall { to: TO, value }).await.status());
    assert_eq!(net.usdc(TO).await, value);
    let broke = Key::fresh(3);
    net.devnet.set_balance(broke.address(), U256::from(10).pow(U256::from(18)));
    let all = Usdc::transferCall { to: TO, value: U256::ONE };
    net.reverts(broke, all, "ERC20: transfer amount exceeds balance").await;
    let nowhere = Usdc::transferCall { to: Address::ZERO, value };
    net.reverts(Key::dev(1), nowhere, "ERC20: transfer to the zero address").await;
}

#[tokio::test]
async fn an_allowance_is_spent_even_if_unlimited() {
    let net = Net::instant().await;
    let (owner, spender) = (Key::dev(1), Key::dev(2));
    let take = Usdc::transferFromCall { from: owner.address(), to: TO, value: U256::from(4) };
    net.reverts(spender, take.clone(), "ERC20: transfer amount exceeds allowance").await;
    let approve = Usdc::approveCall { spender: spender.address(), value: U256::MAX };
    net.transact(owner, approve).await;
    assert!(net.transact(spender, take).await.status());
    let left = Usdc::allowanceCall { owner: owner.address(), spender: spender.address() };
    assert_eq!(net.read(left).await, U256::MAX - U256::from(4));
}

#[tokio::test]
async fn only_minters_mint() {
    let net = Net::instant().await;
    let mint = |units: u64| Usdc::mintCall { to: TO, amount: U256::from(units) };
    assert!(net.transact(Key::dev(0), mint(5)).await.status());
    assert_eq!(net.usdc(TO).await, U256::from(5));
    net.reverts(Key::dev(1), mint(1), "FiatToken: caller is not a minter").await;

    let appoint =
        Usdc::configureMinterCall { minter: Key::dev(1).address(), allowed: U256::from(3) };
    net.reverts(Key::dev(1), appoint.clone(), "Ownable: caller is not the owner").await;
    assert!(net.transact(Key::dev(0), appoint).await.status());
    assert!(net.transact(Key::dev(1), mint(2)).await.status());
    net.reverts(Key::dev(1), mint(2), "FiatToken: mint amount exceeds minterAllowance").await;
}

#[tokio::test]
async fn a_paused_token_and_a_blacklisted_account_move_nothing() {
    let net = Net::instant().await;
    let transfer = Usdc::transferCall { to: TO, value: U256::ONE };
    net.transact(Key::dev(0), Usdc::blacklistCall { account: Key::dev(1).address() }).await;
    net.reverts(Key::dev(1), transfer.clone(), "Blacklistable: account is blacklisted").await;
    net.transact(Key::dev(0), Usdc::blacklistCall { account: TO }).await;
    net.reverts(Key::dev(2), transfer.clone(), "Blacklistable: account is blacklisted").await;
    net.devnet.set_token_balance(TO, 5);
    assert_eq!(net.usdc(TO).await, U256::from(5), "dealing keeps the mark out of the balance");
    net.reverts(Key::dev(2), transfer.clone(), "Blacklistable: account is blacklisted").await;
    net.transact(Key::dev(0), Usdc::pauseCall {}).await;
    net.reverts(Key::dev(2), transfer, "Pausable: paused").await;
}

#[tokio::test]
async fn balances_lie_where_usdc_keeps_them() {
    let net = Net::instant().await;
    let slot = keccak256((TO, U256::from(9)).abi_encode());
    let word = alloy_primitives::B256::from(U256::from(123));
    net.ok::<Value>("anvil_setStorageAt", json!([farebox_devnet::TOKEN_ADDRESS, slot, word])).await;
    assert_eq!(net.usdc(TO).await, U256::from(123));
}
