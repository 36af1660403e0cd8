//! What a payer asks of a chain: may Permit2 spend my token, and what became of what I signed.
//!
//! A payer has no facilitator and trusts none. It reads its own node, and takes from it only what a
//! block says: that an authorisation was used by this very transaction, or that time ran out on it.

use alloy_primitives::{Address, B256, U256};
use farebox_protocol::{Amount, Network, Timestamp};
use serde_json::{Value, json};
use url::Url;

use super::abi;
use super::address::EvmAddress;
use super::check::EvmPayment;
use super::contracts::PERMIT2;
use super::method::{ContractCall, Proof, Seen};
use super::token::EvmToken;
use super::tracker::receipt_call;
use super::usage::ask_at;
use crate::facilitator::FacilitatorError;
use crate::local::{SetupError, check_endpoints};
use crate::rpc::{
    Answer, Call, Receipt, RpcClient, RpcError, Transaction, garbage, node_client, one_word,
    quantity,
};

/// `nonces(address)` of EIP-2612.
const NONCES: [u8; 4] = [0x7e, 0xce, 0xbe, 0x00];

/// A payer's own node on one network. Cheap to clone; logs and errors show hosts only.
#[derive(Clone, Debug)]
pub struct PayerNode {
    network: Network,
    chain_id: u64,
    rpc: RpcClient,
}

/// What Permit2 may do with a payer's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit2Allowance {
    /// How much it may spend, in atomic units; what is more than can be counted is all that can.
    pub amount: Amount,
    /// The nonce of the payer's next permit; `None` where the token knows none (EIP-2612).
    pub permit_nonce: Option<u64>,
}

/// Whether an authorisation was used, as one block has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayerUsage {
    /// Used or cancelled: nothing more can be charged by it.
    Used,
    /// Not used when this block was made.
    Unused {
        /// The block's own time.
        at: Timestamp,
    },
}

impl PayerNode {
    /// The nodes of a network, best first; the next one is asked where one fails.
    ///
    /// The process must have a default TLS provider installed.
    pub fn new(network: Network, rpc: &[Url]) -> Result<Self, SetupError> {
        check_endpoints(&network, rpc)?;
        let chain_id = network.evm_chain_id().ok_or(SetupError::NotEvm(network.clone()))?;
        let http = node_client().map_err(SetupError::Http)?;
        Ok(Self { network, chain_id, rpc: RpcClient::new(http, rpc) })
    }

    /// Where it is.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What Permit2 may spend of `token` for `owner`.
    pub async fn permit2_allowance(
        &self,
        token: &EvmToken,
        owner: EvmAddress,
    ) -> Result<Permit2Allowance, FacilitatorError> {
        let (token, owner) = (token.address().alloy(), owner.alloy());
        self.read_allowance(token, owner).await.map_err(|it| self.asked(it))
    }

    /// Whether a payment's authorisation was used, as of the latest block.
    pub async fn usage(&self, payment: &EvmPayment) -> Result<PayerUsage, FacilitatorError> {
        self.read_usage(payment).await.map_err(|it| self.asked(it))
    }

    /// Whether this transaction is in a block and moved just `charged` by the payment's authorisation,
    /// which is then used up.
    pub async fn is_paid_by(
        &self,
        payment: &EvmPayment,
        charged: Amount,
        transaction: &str,
    ) -> Result<bool, FacilitatorError> {
        let Ok(hash) = transaction.parse::<B256>() else { return Ok(false) };
        let payment = EvmPayment { amount: charged, ..payment.clone() };
        self.read_proof(&payment, hash).await.map_err(|it| self.asked(it))
    }

    async fn read_allowance(
        &self,
        token: Address,
        owner: Address,
    ) -> Result<Permit2Allowance, RpcError> {
        let nonces = ContractCall { to: token, input: abi::encode(NONCES, &[owner.into_word()]) };
        let calls = [ask(&abi::allowance(token, owner, PERMIT2)), ask(&nonces)];
        let [allowance, nonce] = self.answers(calls).await?;
        let allowance = U256::from_be_bytes(one_word(&said("eth_call", allowance)?)?.0);
        // A token without permits reverts here, or answers with nothing.
        let nonce = nonce.ok().and_then(|it| one_word(&it).ok());
        let nonce = nonce.and_then(|it| u64::try_from(U256::from_be_bytes(it.0)).ok());
        let amount = Amount::from_units(u128::try_from(allowance).unwrap_or(u128::MAX));
        Ok(Permit2Allowance { amount, permit_nonce: nonce })
    }

    async fn read_usage(&self, payment: &EvmPayment) -> Result<PayerUsage, RpcError> {
        let [block] =
            self.answers([Call::new("eth_getBlockByNumber", json!(["latest", false]))]).await?;
        let block = said("eth_getBlockByNumber", block)?;
        let field = |name: &str| block.get(name).unwrap_or_default();
        let number: U256 = quantity(field("number"))?;
        let at = Timestamp::from_seconds(quantity(field("timestamp"))?);
        // Of that very block: another node may not have got so far.
        let state = payment.method.use_query(&payment.authorization);
        let [word] = self.answers([ask_at(&state, number)]).await?;
        let word = one_word(&said("eth_call", word)?)?;
        match payment.method.is_used(&payment.authorization, word) {
            Some(true) => Ok(PayerUsage::Used),
            Some(false) => Ok(PayerUsage::Unused { at }),
            None => Err(garbage("something that says nothing of a nonce")),
        }
    }

    async fn read_proof(&self, payment: &EvmPayment, hash: B256) -> Result<bool, RpcError> {
        let transaction = Call::new("eth_getTransactionByHash", json!([hash]));
        let [receipt, transaction] = self.answers([receipt_call(&hash), transaction]).await?;
        let receipt = Receipt::read(said("eth_getTransactionReceipt", receipt)?)?;
        let transaction = Transaction::read(said("eth_getTransactionByHash", transaction)?)?;
        let (Some(receipt), Some(Transaction { to: Some(to), input })) = (receipt, transaction)
        else {
            return Ok(false);
        };
        let call = ContractCall { to, input };
        let seen = Seen { call: &call, logs: &receipt.logs };
        let paid = payment.method.proof(payment, seen) == Proof::Paid;
        Ok(paid && receipt.succeeded() && receipt.transaction_hash == hash)
    }

    /// Answers of a node that is on the right chain.
    async fn answers<const N: usize>(&self, calls: [Call; N]) -> Result<[Answer; N], RpcError> {
        let first = Call::new("eth_chainId", json!([]));
        let calls: Vec<Call> = std::iter::once(first).chain(calls).collect();
        let mut answers = self.rpc.batch(&calls).await?.into_iter();
        let chain = said("eth_chainId", answers.next().ok_or(RpcError::NoEndpoint)?)?;
        if quantity::<u64>(&chain)? != self.chain_id {
            return Err(garbage("for another chain"));
        }
        let answers: Vec<Answer> = answers.collect();
        answers.try_into().map_err(|_| RpcError::NoEndpoint)
    }

    fn asked(&self, error: RpcError) -> FacilitatorError {
        let context = format!("{} by JSON-RPC", self.network);
        FacilitatorError { context, source: Some(Box::new(error)) }
    }
}

/// A read of the latest state.
fn ask(call: &ContractCall) -> Call {
    Call::new("eth_call", json!([{"to": call.to, "data": call.input}, "latest"]))
}

fn said(method: &'static str, answer: Answer) -> Result<Value, RpcError> {
    answer.map_err(|error| RpcError::Node { method, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        abi::tests::check_selector("nonces(address)", NONCES);
    }
}
