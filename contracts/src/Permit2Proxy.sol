// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {ISignatureTransfer} from "./SignatureTransfer.sol";

interface IERC20Permit {
    function permit(
        address owner,
        address spender,
        uint256 value,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;
}

/// @title What the two x402 proxies share
/// @notice The payer signs a Permit2 transfer for the proxy as spender, with the payee as witness: who
/// submits it cannot send the money elsewhere.
/// @dev Permit2 lies at the same address on every chain, so it is a constant and the run-time code works
/// without its constructor.
abstract contract Permit2Proxy {
    struct EIP2612Permit {
        uint256 value;
        uint256 deadline;
        bytes32 r;
        bytes32 s;
        uint8 v;
    }

    ISignatureTransfer public constant PERMIT2 = ISignatureTransfer(0x000000000022D473030F116dDEE9F6B43aC78BA3);

    uint256 private constant IDLE = 1;
    uint256 private constant BUSY = 2;
    uint256 private state = IDLE;

    event Settled();
    event SettledWithPermit();
    event EIP2612PermitFailedWithReason(address indexed token, address indexed owner, string reason);
    event EIP2612PermitFailedWithPanic(address indexed token, address indexed owner, uint256 errorCode);
    event EIP2612PermitFailedWithData(address indexed token, address indexed owner, bytes data);

    error InvalidAmount();
    error InvalidOwner();
    error InvalidDestination();
    error PaymentTooEarly();
    error Permit2612AmountMismatch();
    error ReentrancyGuardReentrantCall();

    /// @dev Tokens are foreign code: none gets to settle while it is being settled in.
    modifier nonReentrant() {
        if (state == BUSY) revert ReentrancyGuardReentrantCall();
        state = BUSY;
        _;
        state = IDLE;
    }

    /// @dev What is refused here is refused before Permit2 is asked.
    function _check(uint256 amount, address owner, address to, uint256 validAfter) internal view {
        if (amount == 0) revert InvalidAmount();
        if (owner == address(0)) revert InvalidOwner();
        if (to == address(0)) revert InvalidDestination();
        if (block.timestamp < validAfter) revert PaymentTooEarly();
    }

    /// @dev The allowance for Permit2 by EIP-2612. It must be for the signed amount; but that the token
    /// refuses is only told in an event: the allowance may be there already, given by the same permit
    /// that somebody else submitted first.
    function _approvePermit2(
        EIP2612Permit calldata approval,
        ISignatureTransfer.TokenPermissions calldata permitted,
        address owner
    ) internal {
        if (approval.value != permitted.amount) revert Permit2612AmountMismatch();
        address token = permitted.token;
        try IERC20Permit(token).permit(
            owner, address(PERMIT2), approval.value, approval.deadline, approval.v, approval.r, approval.s
        ) {} catch Error(string memory reason) {
            emit EIP2612PermitFailedWithReason(token, owner, reason);
        } catch Panic(uint256 code) {
            emit EIP2612PermitFailedWithPanic(token, owner, code);
        } catch (bytes memory data) {
            emit EIP2612PermitFailedWithData(token, owner, data);
        }
    }
}
