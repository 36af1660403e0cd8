// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {AllowanceTransfer} from "./AllowanceTransfer.sol";
import {SignatureTransfer} from "./SignatureTransfer.sol";

/// @title Permit2: token transfers by signature, for any token whose owner approved this contract once
/// @notice Written from the public interface of Uniswap's Permit2; tests hold the two side by side:
/// the same answers, errors and events, case by case.
/// @dev Nothing is stored or computed at construction: the run-time code alone works at any address.
contract Permit2 is SignatureTransfer, AllowanceTransfer {}
