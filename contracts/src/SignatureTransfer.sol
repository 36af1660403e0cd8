// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {Permit2Core} from "./Permit2Core.sol";

/// @title ISignatureTransfer: the part of Permit2's interface that moves tokens by one-time signatures
interface ISignatureTransfer {
    struct TokenPermissions {
        address token;
        uint256 amount;
    }

    struct PermitTransferFrom {
        TokenPermissions permitted;
        uint256 nonce;
        uint256 deadline;
    }

    struct PermitBatchTransferFrom {
        TokenPermissions[] permitted;
        uint256 nonce;
        uint256 deadline;
    }

    struct SignatureTransferDetails {
        address to;
        uint256 requestedAmount;
    }

    function permitWitnessTransferFrom(
        PermitTransferFrom memory permit,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external;
}

/// @title SignatureTransfer: the half of Permit2 in which each signature is good for one transfer
/// @notice Nonces are unordered: bit `nonce & 0xff` of word `nonce >> 8`, for each owner. The caller is
/// the spender that the owner signed for, and may bind more to the signature: the witness.
abstract contract SignatureTransfer is ISignatureTransfer, Permit2Core {
    // EIP-712 type strings, in parts: the witness comes between the head and the struct it refers to.
    string private constant PERMISSIONS_TYPE = "TokenPermissions(address token,uint256 amount)";
    string private constant SINGLE_FIELDS =
        "TransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline";
    string private constant BATCH_FIELDS =
        "TransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline";

    bytes32 private constant PERMISSIONS_TYPEHASH = keccak256(bytes(PERMISSIONS_TYPE));
    bytes32 private constant SINGLE_TYPEHASH =
        keccak256(abi.encodePacked("Permit", SINGLE_FIELDS, ")", PERMISSIONS_TYPE));
    bytes32 private constant BATCH_TYPEHASH =
        keccak256(abi.encodePacked("PermitBatch", BATCH_FIELDS, ")", PERMISSIONS_TYPE));

    /// @notice The used nonces of an owner, 256 to a word.
    mapping(address owner => mapping(uint256 word => uint256 used)) public nonceBitmap;

    event UnorderedNonceInvalidation(address indexed owner, uint256 word, uint256 mask);

    error InvalidAmount(uint256 maxAmount);
    error LengthMismatch();

    function permitTransferFrom(
        PermitTransferFrom memory permit,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(SINGLE_TYPEHASH, _hash(permit.permitted), msg.sender, permit.nonce, permit.deadline)
        );
        _transferSingle(permit, transferDetails, owner, structHash, signature);
    }

    function permitTransferFrom(
        PermitBatchTransferFrom memory permit,
        SignatureTransferDetails[] calldata transferDetails,
        address owner,
        bytes calldata signature
    ) external {
        bytes32 structHash = keccak256(
            abi.encode(BATCH_TYPEHASH, _hash(permit.permitted), msg.sender, permit.nonce, permit.deadline)
        );
        _transferBatch(permit, transferDetails, owner, structHash, signature);
    }

    /// @param witnessTypeString the rest of the type string after `deadline,`: the witness field, a
    /// closing parenthesis, and the definitions of the structs in alphabetical order.
    function permitWitnessTransferFrom(
        PermitTransferFrom memory permit,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external {
        bytes32 typeHash = keccak256(abi.encodePacked("PermitWitness", SINGLE_FIELDS, ",", witnessTypeString));
        bytes32 structHash = keccak256(
            abi.encode(typeHash, _hash(permit.permitted), msg.sender, permit.nonce, permit.deadline, witness)
        );
        _transferSingle(permit, transferDetails, owner, structHash, signature);
    }

    function permitWitnessTransferFrom(
        PermitBatchTransferFrom memory permit,
        SignatureTransferDetails[] calldata transferDetails,
        address owner,
        bytes32 witness,
        string calldata witnessTypeString,
        bytes calldata signature
    ) external {
        bytes32 typeHash = keccak256(abi.encodePacked("PermitBatchWitness", BATCH_FIELDS, ",", witnessTypeString));
        bytes32 structHash = keccak256(
            abi.encode(typeHash, _hash(permit.permitted), msg.sender, permit.nonce, permit.deadline, witness)
        );
        _transferBatch(permit, transferDetails, owner, structHash, signature);
    }

    /// @notice Takes back what the caller signed: the nonces of the set bits can no longer be used.
    function invalidateUnorderedNonces(uint256 wordPos, uint256 mask) external {
        nonceBitmap[msg.sender][wordPos] |= mask;
        emit UnorderedNonceInvalidation(msg.sender, wordPos, mask);
    }

    // The signed amounts of a single transfer are looked at before the nonce and the signature, those of
    // a batch after them; a batch leaves out what is zero. Clients see this in which error they get.

    function _transferSingle(
        PermitTransferFrom memory permit,
        SignatureTransferDetails calldata transferDetails,
        address owner,
        bytes32 structHash,
        bytes calldata signature
    ) private {
        uint256 amount = transferDetails.requestedAmount;
        _requireInTime(permit.deadline);
        if (amount > permit.permitted.amount) revert InvalidAmount(permit.permitted.amount);
        _useNonce(owner, permit.nonce);
        _requireSigned(owner, structHash, signature);
        _pull(permit.permitted.token, owner, transferDetails.to, amount);
    }

    function _transferBatch(
        PermitBatchTransferFrom memory permit,
        SignatureTransferDetails[] calldata transferDetails,
        address owner,
        bytes32 structHash,
        bytes calldata signature
    ) private {
        _requireInTime(permit.deadline);
        if (permit.permitted.length != transferDetails.length) revert LengthMismatch();
        _useNonce(owner, permit.nonce);
        _requireSigned(owner, structHash, signature);
        for (uint256 i = 0; i < transferDetails.length; ++i) {
            TokenPermissions memory permitted = permit.permitted[i];
            uint256 amount = transferDetails[i].requestedAmount;
            if (amount > permitted.amount) revert InvalidAmount(permitted.amount);
            if (amount != 0) _pull(permitted.token, owner, transferDetails[i].to, amount);
        }
    }

    function _useNonce(address owner, uint256 nonce) private {
        uint256 bit = 1 << (nonce & 0xff);
        uint256 used = nonceBitmap[owner][nonce >> 8];
        if (used & bit != 0) revert InvalidNonce();
        nonceBitmap[owner][nonce >> 8] = used | bit;
    }

    function _hash(TokenPermissions memory permitted) private pure returns (bytes32) {
        return keccak256(abi.encode(PERMISSIONS_TYPEHASH, permitted.token, permitted.amount));
    }

    function _hash(TokenPermissions[] memory permitted) private pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](permitted.length);
        for (uint256 i = 0; i < permitted.length; ++i) hashes[i] = _hash(permitted[i]);
        return keccak256(abi.encodePacked(hashes));
    }
}
