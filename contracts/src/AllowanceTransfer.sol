// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {Permit2Core} from "./Permit2Core.sol";

/// @title IAllowanceTransfer: the structs of the part of Permit2 that keeps allowances
interface IAllowanceTransfer {
    struct PermitDetails {
        address token;
        uint160 amount;
        uint48 expiration;
        uint48 nonce;
    }

    struct PermitSingle {
        PermitDetails details;
        address spender;
        uint256 sigDeadline;
    }

    struct PermitBatch {
        PermitDetails[] details;
        address spender;
        uint256 sigDeadline;
    }

    struct AllowanceTransferDetails {
        address from;
        address to;
        uint160 amount;
        address token;
    }

    struct TokenSpenderPair {
        address token;
        address spender;
    }
}

/// @title AllowanceTransfer: the half of Permit2 that keeps allowances which expire
/// @notice x402 does not use it; wallets and other clients of Permit2 do.
abstract contract AllowanceTransfer is IAllowanceTransfer, Permit2Core {
    struct PackedAllowance {
        uint160 amount;
        uint48 expiration;
        uint48 nonce;
    }

    bytes32 private constant DETAILS_TYPEHASH =
        keccak256("PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)");
    bytes32 private constant SINGLE_TYPEHASH = keccak256(
        "PermitSingle(PermitDetails details,address spender,uint256 sigDeadline)PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)"
    );
    bytes32 private constant BATCH_TYPEHASH = keccak256(
        "PermitBatch(PermitDetails[] details,address spender,uint256 sigDeadline)PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)"
    );

    /// @notice What a spender may take, until when (inclusive), and the nonce of the next permit.
    mapping(address owner => mapping(address token => mapping(address spender => PackedAllowance)))
        public allowance;

    event Approval(
        address indexed owner, address indexed token, address indexed spender, uint160 amount, uint48 expiration
    );
    event Permit(
        address indexed owner,
        address indexed token,
        address indexed spender,
        uint160 amount,
        uint48 expiration,
        uint48 nonce
    );
    event Lockdown(address indexed owner, address token, address spender);
    event NonceInvalidation(
        address indexed owner, address indexed token, address indexed spender, uint48 newNonce, uint48 oldNonce
    );

    error AllowanceExpired(uint256 deadline);
    error InsufficientAllowance(uint256 amount);
    error ExcessiveInvalidation();

    /// @param expiration zero means: in this block only.
    function approve(address token, address spender, uint160 amount, uint48 expiration) external {
        PackedAllowance storage allowed = allowance[msg.sender][token][spender];
        (allowed.amount, allowed.expiration) = (amount, _orNow(expiration));
        emit Approval(msg.sender, token, spender, amount, expiration);
    }

    function permit(address owner, PermitSingle memory permitSingle, bytes calldata signature) external {
        _requireInTime(permitSingle.sigDeadline);
        bytes32 structHash = keccak256(
            abi.encode(
                SINGLE_TYPEHASH, _hash(permitSingle.details), permitSingle.spender, permitSingle.sigDeadline
            )
        );
        _requireSigned(owner, structHash, signature);
        _allow(owner, permitSingle.spender, permitSingle.details);
    }

    function permit(address owner, PermitBatch memory permitBatch, bytes calldata signature) external {
        _requireInTime(permitBatch.sigDeadline);
        bytes32[] memory hashes = new bytes32[](permitBatch.details.length);
        for (uint256 i = 0; i < hashes.length; ++i) hashes[i] = _hash(permitBatch.details[i]);
        bytes32 details = keccak256(abi.encodePacked(hashes));
        _requireSigned(
            owner,
            keccak256(abi.encode(BATCH_TYPEHASH, details, permitBatch.spender, permitBatch.sigDeadline)),
            signature
        );
        for (uint256 i = 0; i < hashes.length; ++i) _allow(owner, permitBatch.spender, permitBatch.details[i]);
    }

    function transferFrom(address from, address to, uint160 amount, address token) external {
        _spend(from, to, amount, token);
    }

    function transferFrom(AllowanceTransferDetails[] calldata transferDetails) external {
        for (uint256 i = 0; i < transferDetails.length; ++i) {
            AllowanceTransferDetails calldata one = transferDetails[i];
            _spend(one.from, one.to, one.amount, one.token);
        }
    }

    function lockdown(TokenSpenderPair[] calldata approvals) external {
        for (uint256 i = 0; i < approvals.length; ++i) {
            allowance[msg.sender][approvals[i].token][approvals[i].spender].amount = 0;
            emit Lockdown(msg.sender, approvals[i].token, approvals[i].spender);
        }
    }

    function invalidateNonces(address token, address spender, uint48 newNonce) external {
        PackedAllowance storage allowed = allowance[msg.sender][token][spender];
        uint48 oldNonce = allowed.nonce;
        if (newNonce <= oldNonce) revert InvalidNonce();
        if (newNonce - oldNonce > type(uint16).max) revert ExcessiveInvalidation();
        allowed.nonce = newNonce;
        emit NonceInvalidation(msg.sender, token, spender, newNonce, oldNonce);
    }

    function _allow(address owner, address spender, PermitDetails memory details) private {
        PackedAllowance storage allowed = allowance[owner][details.token][spender];
        if (allowed.nonce != details.nonce) revert InvalidNonce();
        uint48 next;
        unchecked {
            next = details.nonce + 1;
        }
        (allowed.amount, allowed.expiration, allowed.nonce) = (details.amount, _orNow(details.expiration), next);
        emit Permit(owner, details.token, spender, details.amount, details.expiration, details.nonce);
    }

    function _spend(address from, address to, uint160 amount, address token) private {
        PackedAllowance storage allowed = allowance[from][token][msg.sender];
        if (block.timestamp > allowed.expiration) revert AllowanceExpired(allowed.expiration);
        uint160 left = allowed.amount;
        if (left != type(uint160).max) {
            if (amount > left) revert InsufficientAllowance(left);
            allowed.amount = left - amount;
        }
        _pull(token, from, to, amount);
    }

    function _orNow(uint48 expiration) private view returns (uint48) {
        return expiration == 0 ? uint48(block.timestamp) : expiration;
    }

    function _hash(PermitDetails memory details) private pure returns (bytes32) {
        return keccak256(
            abi.encode(DETAILS_TYPEHASH, details.token, details.amount, details.expiration, details.nonce)
        );
    }
}
