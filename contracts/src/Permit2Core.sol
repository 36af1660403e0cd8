// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "./Signatures.sol";

/// @title What both halves of Permit2 share: the EIP-712 domain, the question of who signed, and the
/// way a token is moved
abstract contract Permit2Core {
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)");
    bytes32 private constant NAME_HASH = keccak256("Permit2");

    // In the 64-byte form of a signature (EIP-2098) the top bit of the second word is the parity.
    uint256 private constant PARITY = 1 << 255;

    error SignatureExpired(uint256 signatureDeadline);
    error InvalidNonce();
    error InvalidSignatureLength();
    error InvalidSignature();
    error InvalidSigner();
    error InvalidContractSignature();

    /// @dev Computed with each use, so that it is right after a fork of the chain and at any address.
    // solhint-disable-next-line func-name-mixedcase
    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPEHASH, NAME_HASH, block.chainid, address(this)));
    }

    function _requireInTime(uint256 deadline) internal view {
        if (block.timestamp > deadline) revert SignatureExpired(deadline);
    }

    /// @dev An account with code is asked (ERC-1271) and what it reverts with is passed on; a key must
    /// have signed in 65 or in 64 bytes. A malleated signature is as good as its twin: what keeps a
    /// permit from being used twice is its nonce.
    function _requireSigned(address signer, bytes32 structHash, bytes calldata signature) internal view {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), structHash));
        if (signer.code.length == 0) {
            address recovered = _recover(digest, signature);
            if (recovered == address(0)) revert InvalidSignature();
            if (recovered != signer) revert InvalidSigner();
        } else if (IERC1271(signer).isValidSignature(digest, signature) != IERC1271.isValidSignature.selector) {
            revert InvalidContractSignature();
        }
    }

    /// @dev A token may return true or nothing at all, as old ones do; an address without code
    /// "succeeds" too. Both are part of how Permit2 behaves.
    function _pull(address token, address from, address to, uint256 amount) internal {
        (bool ok, bytes memory answer) =
            token.call(abi.encodeWithSignature("transferFrom(address,address,uint256)", from, to, amount));
        bool agreed = answer.length == 0 || (answer.length >= 32 && abi.decode(answer, (uint256)) == 1);
        require(ok && agreed, "TRANSFER_FROM_FAILED");
    }

    function _recover(bytes32 digest, bytes calldata signature) private pure returns (address) {
        if (signature.length == 65) {
            (bytes32 r, bytes32 s) = abi.decode(signature, (bytes32, bytes32));
            return ecrecover(digest, uint8(signature[64]), r, s);
        }
        if (signature.length == 64) {
            (bytes32 r, uint256 vs) = abi.decode(signature, (bytes32, uint256));
            return ecrecover(digest, vs & PARITY == 0 ? 27 : 28, r, bytes32(vs & ~PARITY));
        }
        revert InvalidSignatureLength();
    }
}
