//! What is written by hand, against what it stands for.

use super::*;
use crate::evm::abi::tests::check_selector;
use crate::evm::exact_permit2::ExactPermit2;
use crate::evm::upto::Upto;

#[test]
fn selectors_and_topics() {
    let permit = "((address,uint256),uint256,uint256)";
    let approval = "(uint256,uint256,bytes32,bytes32,uint8)";
    let exact = format!("{permit},address,(address,uint256),bytes)");
    check_selector(&format!("settle({exact}"), ExactPermit2.proxy().settle);
    let with_permit = ExactPermit2.proxy().settle_with_permit;
    check_selector(&format!("settleWithPermit({approval},{exact}"), with_permit);
    let upto = format!("{permit},uint256,address,(address,address,uint256),bytes)");
    check_selector(&format!("settle({upto}"), Upto.proxy().settle);
    let with_permit = Upto.proxy().settle_with_permit;
    check_selector(&format!("settleWithPermit({approval},{upto}"), with_permit);
    check_selector("nonceBitmap(address,uint256)", NONCE_BITMAP);
    for (selector, name) in ERRORS {
        check_selector(name, *selector);
    }
    let invalidation = "UnorderedNonceInvalidation(address,uint256,uint256)";
    assert_eq!(keccak256(invalidation), INVALIDATION);
    assert_eq!(keccak256("Settled()"), SETTLED);
    assert_eq!(keccak256("SettledWithPermit()"), SETTLED_WITH_PERMIT);
}
