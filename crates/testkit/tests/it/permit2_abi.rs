//! The interfaces of Permit2 and of the proxies as their clients write them, and what is signed.

use alloy_sol_types::sol;

sol! {
    #[derive(Debug)]
    struct TokenPermissions { address token; uint256 amount; }
    #[derive(Debug)]
    struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
    #[derive(Debug)]
    struct PermitBatchTransferFrom { TokenPermissions[] permitted; uint256 nonce; uint256 deadline; }
    #[derive(Debug)]
    struct SignatureTransferDetails { address to; uint256 requestedAmount; }
    #[derive(Debug)]
    struct PermitDetails { address token; uint160 amount; uint48 expiration; uint48 nonce; }
    #[derive(Debug)]
    struct PermitSingle { PermitDetails details; address spender; uint256 sigDeadline; }
    #[derive(Debug)]
    struct PermitBatch { PermitDetails[] details; address spender; uint256 sigDeadline; }
    #[derive(Debug)]
    struct AllowanceTransferDetails { address from; address to; uint160 amount; address token; }
    #[derive(Debug)]
    struct TokenSpenderPair { address token; address spender; }
    #[derive(Debug)]
    struct EIP2612Permit { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }

    #[derive(Debug)]
    interface Permit2 {
        function DOMAIN_SEPARATOR() external view returns (bytes32);
        function nonceBitmap(address owner, uint256 word) external view returns (uint256);
        function permitTransferFrom(PermitTransferFrom permit,
            SignatureTransferDetails transferDetails, address owner, bytes signature) external;
        function permitTransferFrom(PermitBatchTransferFrom permit,
            SignatureTransferDetails[] transferDetails, address owner, bytes signature) external;
        function permitWitnessTransferFrom(PermitTransferFrom permit,
            SignatureTransferDetails transferDetails, address owner, bytes32 witness,
            string witnessTypeString, bytes signature) external;
        function permitWitnessTransferFrom(PermitBatchTransferFrom permit,
            SignatureTransferDetails[] transferDetails, address owner, bytes32 witness,
            string witnessTypeString, bytes signature) external;
        function invalidateUnorderedNonces(uint256 wordPos, uint256 mask) external;
        function allowance(address owner, address token, address spender) external view
            returns (uint160 amount, uint48 expiration, uint48 nonce);
        function approve(address token, address spender, uint160 amount, uint48 expiration) external;
        function permit(address owner, PermitSingle permitSingle, bytes signature) external;
        function permit(address owner, PermitBatch permitBatch, bytes signature) external;
        function transferFrom(address from, address to, uint160 amount, address token) external;
        function transferFrom(AllowanceTransferDetails[] transferDetails) external;
        function lockdown(TokenSpenderPair[] approvals) external;
        function invalidateNonces(address token, address spender, uint48 newNonce) external;

        error SignatureExpired(uint256 signatureDeadline);
        error InvalidNonce();
        error InvalidAmount(uint256 maxAmount);
        error LengthMismatch();
        error InvalidSignatureLength();
        error InvalidSignature();
        error InvalidSigner();
        error InvalidContractSignature();
        error AllowanceExpired(uint256 deadline);
        error InsufficientAllowance(uint256 amount);
        error ExcessiveInvalidation();
    }

    #[derive(Debug)]
    interface Proxy {
        error InvalidAmount();
        error InvalidOwner();
        error InvalidDestination();
        error PaymentTooEarly();
        error Permit2612AmountMismatch();
        error AmountExceedsPermitted();
        error UnauthorizedFacilitator();
        error ReentrancyGuardReentrantCall();
    }
}

/// What is signed for plain transfers; the names are those of EIP-712.
pub(crate) mod plain {
    alloy_sol_types::sol! {
        struct TokenPermissions { address token; uint256 amount; }
        struct PermitTransferFrom {
            TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline;
        }
        struct PermitBatchTransferFrom {
            TokenPermissions[] permitted; address spender; uint256 nonce; uint256 deadline;
        }
    }
}

/// What is signed for `exact`, and how it is settled.
pub(crate) mod exact {
    alloy_sol_types::sol! {
        struct TokenPermissions { address token; uint256 amount; }
        #[derive(Debug)]
        struct Witness { address to; uint256 validAfter; }
        struct PermitWitnessTransferFrom {
            TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline;
            Witness witness;
        }
        struct PermitBatchWitnessTransferFrom {
            TokenPermissions[] permitted; address spender; uint256 nonce; uint256 deadline;
            Witness witness;
        }
        struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
        struct EIP2612Permit { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }
        function settle(PermitTransferFrom permit, address owner, Witness witness,
            bytes signature) external;
        function settleWithPermit(EIP2612Permit permit2612, PermitTransferFrom permit,
            address owner, Witness witness, bytes signature) external;
    }
}

/// What is signed for `upto`, and how it is settled.
pub(crate) mod upto {
    alloy_sol_types::sol! {
        struct TokenPermissions { address token; uint256 amount; }
        #[derive(Debug)]
        struct Witness { address to; address facilitator; uint256 validAfter; }
        struct PermitWitnessTransferFrom {
            TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline;
            Witness witness;
        }
        struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
        struct EIP2612Permit { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }
        function settle(PermitTransferFrom permit, uint256 amount, address owner, Witness witness,
            bytes signature) external;
        function settleWithPermit(EIP2612Permit permit2612, PermitTransferFrom permit,
            uint256 amount, address owner, Witness witness, bytes signature) external;
    }
}
