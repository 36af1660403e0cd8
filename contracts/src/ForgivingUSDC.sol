// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {TestUSDC} from "./TestUSDC.sol";

/// @title ForgivingUSDC: a token that does not revert on a used nonce, for tests
/// @notice Its transaction succeeds and moves nothing, so that a receipt's status proves no payment.
/// @dev The storage is that of `TestUSDC`: its code can be put in that one's place.
contract ForgivingUSDC is TestUSDC {
    constructor(address minter) TestUSDC(minter) {}

    function _transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes memory signature
    ) internal override {
        if (authorizationState[from][nonce]) return;
        super._transferWithAuthorization(from, to, value, validAfter, validBefore, nonce, signature);
    }
}
