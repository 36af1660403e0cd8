// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// @title TestUSDCProxy: what lies at USDC's address, so that each call costs what it costs there
/// @notice USDC is behind a proxy: the storage is here, the code elsewhere. A call of it reads who the
/// admin is, reads where the code is, and goes on there.
/// @dev The slots are those of USDC's proxy (ZeppelinOS, before EIP-1967). Nobody can upgrade this one.
contract TestUSDCProxy {
    bytes32 private constant IMPLEMENTATION_SLOT = keccak256("org.zeppelinos.proxy.implementation");
    bytes32 private constant ADMIN_SLOT = keccak256("org.zeppelinos.proxy.admin");

    constructor(address implementation, address admin) {
        bytes32 implementationSlot = IMPLEMENTATION_SLOT;
        bytes32 adminSlot = ADMIN_SLOT;
        assembly ("memory-safe") {
            sstore(implementationSlot, implementation)
            sstore(adminSlot, admin)
        }
    }

    fallback() external payable {
        bytes32 implementationSlot = IMPLEMENTATION_SLOT;
        bytes32 adminSlot = ADMIN_SLOT;
        address admin;
        assembly ("memory-safe") {
            admin := sload(adminSlot)
        }
        require(msg.sender != admin, "Cannot call fallback function from the proxy admin");
        assembly {
            calldatacopy(0, 0, calldatasize())
            let done := delegatecall(gas(), sload(implementationSlot), 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            switch done
            case 0 { revert(0, returndatasize()) }
            default { return(0, returndatasize()) }
        }
    }
}
