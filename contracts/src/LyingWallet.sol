// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "./Signatures.sol";

/// @title LyingWallet: contract payers that nobody should believe, for tests
/// @notice Accepts any signature at all, except where its lie says otherwise. Anyone may change the
/// lie: a test does, between the check of a payment and its settlement.
contract LyingWallet is IERC1271 {
    enum Lie {
        // Has "signed" whatever it is asked about.
        Nothing,
        // Has signed when an account asks, and has not when a contract does: the token, Permit2.
        ToContracts,
        // Has signed in a simulation, which pays for no gas, and has not in a transaction.
        InTransactions,
        // Has not signed.
        Always,
        // Burns all the gas it is given.
        BurnsGas,
        // Has signed, after using up five million gas.
        WastesGas,
        // Answers with a megabyte that begins with "has signed".
        Floods
    }

    uint256 private constant WASTE = 5_000_000;

    Lie public lie;

    constructor(Lie lie_) {
        lie = lie_;
    }

    /// @notice Posing as a factory, it deploys nothing.
    fallback() external {
        _behave();
    }

    function setLie(Lie lie_) external {
        lie = lie_;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        _behave();
        bool refuse = lie == Lie.Always || (lie == Lie.ToContracts && msg.sender.code.length != 0)
            || (lie == Lie.InTransactions && tx.gasprice != 0);
        return refuse ? bytes4(0xffffffff) : IERC1271.isValidSignature.selector;
    }

    function _behave() private view {
        if (lie == Lie.BurnsGas) {
            assembly ("memory-safe") {
                invalid()
            }
        } else if (lie == Lie.WastesGas) {
            uint256 start = gasleft();
            while (start - gasleft() < WASTE) {}
        } else if (lie == Lie.Floods) {
            bytes4 signed = IERC1271.isValidSignature.selector;
            assembly ("memory-safe") {
                let answer := mload(0x40)
                mstore(answer, signed)
                return(answer, 0x100000)
            }
        }
    }
}
