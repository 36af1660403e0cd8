// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

import {TestWallet} from "./TestWallet.sol";

/// @title TestWalletFactory: makes contract payers whose addresses are known before they exist
/// @notice What a signature by ERC-6492 names so that the wallet can be deployed when it is needed.
contract TestWalletFactory {
    event AccountCreated(address indexed account, address indexed owner, uint256 salt);

    /// @notice The wallet of an owner, made now unless it is there already.
    function createAccount(address owner, uint256 salt) external returns (address account) {
        account = getAddress(owner, salt);
        if (account.code.length == 0) {
            new TestWallet{salt: bytes32(salt)}(owner);
            emit AccountCreated(account, owner, salt);
        }
    }

    function getAddress(address owner, uint256 salt) public view returns (address) {
        bytes32 creation = keccak256(abi.encodePacked(type(TestWallet).creationCode, abi.encode(owner)));
        bytes32 hash = keccak256(abi.encodePacked(hex"ff", address(this), bytes32(salt), creation));
        return address(uint160(uint256(hash)));
    }
}
