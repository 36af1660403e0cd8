//! The start-up check: nodes answer, are of the right chain, and the tokens are who we think.

use alloy_primitives::{B256, Bytes};
use farebox_protocol::Network;
use serde_json::json;

use super::abi;
use super::address::EvmAddress;
use super::chain::Chain;
use super::contracts::MULTICALL3;
use super::deployed::has_code;
use super::exact::authorization_state;
use super::method::METHODS;
use super::token::EvmToken;
use super::verify;
use crate::config::Batching;
use crate::rpc::{Answer, Call, RpcClient, RpcError, quantity, words};
use crate::scheme::TransferMethod;

/// Something that would take no payments, or lose them.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No endpoint of a network answers.
    #[error("{network}: no RPC endpoint answers ({hosts}): {why}")]
    Unreachable {
        /// Whose.
        network: Network,
        /// Which were asked.
        hosts: String,
        /// What the last one said.
        why: String,
    },
    /// An endpoint belongs to another chain.
    #[error("{network}: the RPC endpoint {host} is of chain {found}")]
    WrongChain {
        /// What was configured.
        network: Network,
        /// The endpoint.
        host: String,
        /// The chain id that it says.
        found: u64,
    },
    /// There is no contract at the token's address.
    #[error("{network}: there is no contract at the token's address {token}")]
    NoContract {
        /// Where.
        network: Network,
        /// The address.
        token: EvmAddress,
    },
    /// A scheme that is offered on a network needs a contract that is not there.
    #[error("{network}: `{scheme}` cannot be settled: there is no contract {contract}")]
    NotDeployed {
        /// Where.
        network: Network,
        /// What a configuration calls it.
        scheme: &'static str,
        /// The contract's name and address.
        contract: String,
    },
    /// Settlements are to go together on a network that has no Multicall3.
    #[error(
        "{network}: settlements cannot go together (batch_max): there is no contract Multicall3 at {}; \
         with batch_max = 1 they go one by one",
        MULTICALL3.to_checksum(None)
    )]
    NoMulticall3 {
        /// Where.
        network: Network,
    },
    /// The token has no EIP-3009, or does not say its EIP-712 domain.
    #[error(
        "{network}: the token {token} does not answer {call}: it cannot be paid with by EIP-3009"
    )]
    NotEip3009 {
        /// Where.
        network: Network,
        /// The address.
        token: EvmAddress,
        /// What was asked of it.
        call: &'static str,
    },
    /// The configured EIP-712 name or version is not the token's: every signature would be refused.
    #[error(
        "{network}: the token {token} has another EIP-712 domain than name `{name}`, version \
         `{version}`; it says name `{says_name}`, version `{says_version}`"
    )]
    WrongDomain {
        /// Where.
        network: Network,
        /// The address.
        token: EvmAddress,
        /// What was configured.
        name: String,
        /// What was configured.
        version: String,
        /// What `name()` says.
        says_name: String,
        /// What `version()` says.
        says_version: String,
    },
}

impl Chain {
    /// Everything that is wrong with this network's configuration. One dead endpoint of several is
    /// none: the others do.
    pub(crate) async fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut alive = false;
        let mut why = String::from("none is configured");
        for endpoint in self.rpc().apart() {
            match chain_id(&endpoint).await {
                Ok(found) if found == self.chain_id() => alive = true,
                Ok(found) => {
                    let (network, host) = (self.network().clone(), endpoint.hosts());
                    problems.push(Problem::WrongChain { network, host, found });
                }
                Err(error) => {
                    tracing::warn!(network = %self.network(), %error, "an RPC endpoint fails");
                    why = error.to_string();
                }
            }
        }
        if !problems.is_empty() {
            return problems;
        }
        if !alive {
            let (network, hosts) = (self.network().clone(), self.rpc().hosts());
            return vec![Problem::Unreachable { network, hosts, why }];
        }
        for token in self.tokens() {
            if let Err(problem) = self.check_token(token).await {
                problems.push(problem);
            }
        }
        for method in METHODS.iter().filter(|it| self.offers(it.word())) {
            match self.missing_contract(*method).await {
                Ok(None) => {}
                Ok(Some(contract)) => {
                    let (network, scheme) = (self.network().clone(), method.word());
                    problems.push(Problem::NotDeployed { network, scheme, contract });
                }
                Err(error) => problems.push(self.unreachable(&error)),
            }
        }
        match self.batch_limits().await {
            Ok(None) if matches!(self.config().batching, Batching::Required { .. }) => {
                problems.push(Problem::NoMulticall3 { network: self.network().clone() });
            }
            Ok(_) => {}
            Err(error) => problems.push(self.unreachable(&error)),
        }
        problems
    }

    /// Whether the configuration promises this scheme here.
    fn offers(&self, word: &str) -> bool {
        self.config().offers.iter().any(|it| it.word() == word)
    }

    /// Whether the tokens are to be paid with by EIP-3009.
    fn needs_eip3009(&self) -> bool {
        self.config().offers.iter().any(|it| it.method() == TransferMethod::Eip3009)
    }

    fn unreachable(&self, error: &RpcError) -> Problem {
        let (network, hosts) = (self.network().clone(), self.rpc().hosts());
        Problem::Unreachable { network, hosts, why: error.to_string() }
    }

    async fn check_token(&self, token: &EvmToken) -> Result<(), Problem> {
        let (network, address) = (self.network().clone(), token.address());
        let ask = |data: Bytes| {
            let call = json!({"to": address.alloy(), "data": data});
            Call::new("eth_call", json!([call, "latest"]))
        };
        let calls = [
            Call::new("eth_getCode", json!([address.alloy(), "latest"])),
            ask(abi::bare(abi::DOMAIN_SEPARATOR)),
            verify::ask(&authorization_state(address.alloy(), address.alloy(), B256::ZERO)),
            ask(abi::bare(abi::NAME)),
            ask(abi::bare(abi::VERSION)),
        ];
        let answers = self.rpc().batch(&calls).await.map_err(|error| self.unreachable(&error))?;
        if !has_code(answers.first().and_then(|it| it.as_ref().ok())) {
            return Err(Problem::NoContract { network, token: address });
        }
        if !self.needs_eip3009() {
            return Ok(());
        }
        let says = |index: usize| words_of(answers.get(index));
        let Some(separator) = says(1).first().copied() else {
            let call = "DOMAIN_SEPARATOR()";
            return Err(Problem::NotEip3009 { network, token: address, call });
        };
        if says(2).len() != 1 {
            let call = "authorizationState(address,bytes32)";
            return Err(Problem::NotEip3009 { network, token: address, call });
        }
        if separator == token.domain_separator() {
            return Ok(());
        }
        let text = |index| abi::string(&says(index)).unwrap_or_else(|| String::from("?"));
        Err(Problem::WrongDomain {
            network,
            token: address,
            name: token.config().name.clone(),
            version: token.config().version.clone(),
            says_name: text(3),
            says_version: text(4),
        })
    }
}

async fn chain_id(endpoint: &RpcClient) -> Result<u64, RpcError> {
    quantity(&endpoint.call("eth_chainId", json!([])).await?)
}

fn words_of(answer: Option<&Answer>) -> Vec<B256> {
    let value = answer.and_then(|it| it.as_ref().ok());
    value.and_then(|it| words(it).ok()).unwrap_or_default()
}
