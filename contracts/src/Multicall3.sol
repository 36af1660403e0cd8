// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// @title Multicall3: many calls in one
/// @notice Written from the public interface of the contract of that name; tests hold the two side by
/// side. Whoever is called sees this contract as its caller.
contract Multicall3 {
    struct Call {
        address target;
        bytes callData;
    }

    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Call3Value {
        address target;
        bool allowFailure;
        uint256 value;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    string private constant FAILED = "Multicall3: call failed";

    /// @notice All or nothing.
    function aggregate(Call[] calldata calls)
        external
        payable
        returns (uint256 blockNumber, bytes[] memory returnData)
    {
        blockNumber = block.number;
        returnData = new bytes[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            Result memory result = _call(calls[i].target, 0, calls[i].callData);
            require(result.success, FAILED);
            returnData[i] = result.returnData;
        }
    }

    /// @notice All or nothing only if success is required.
    function tryAggregate(bool requireSuccess, Call[] calldata calls)
        public
        payable
        returns (Result[] memory returnData)
    {
        returnData = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            Result memory result = _call(calls[i].target, 0, calls[i].callData);
            require(result.success || !requireSuccess, FAILED);
            returnData[i] = result;
        }
    }

    /// @notice As `tryAggregate`. The hash is of the block that is being made, which no contract can
    /// know: it is zero.
    function tryBlockAndAggregate(bool requireSuccess, Call[] calldata calls)
        public
        payable
        returns (uint256 blockNumber, bytes32 blockHash, Result[] memory returnData)
    {
        blockNumber = block.number;
        blockHash = blockhash(block.number);
        returnData = tryAggregate(requireSuccess, calls);
    }

    function blockAndAggregate(Call[] calldata calls)
        external
        payable
        returns (uint256 blockNumber, bytes32 blockHash, Result[] memory returnData)
    {
        return tryBlockAndAggregate(true, calls);
    }

    /// @notice Each call says whether it may fail.
    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory returnData) {
        returnData = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            Call3 calldata one = calls[i];
            Result memory result = _call(one.target, 0, one.callData);
            require(result.success || one.allowFailure, FAILED);
            returnData[i] = result;
        }
    }

    /// @notice Each call takes its share of the ether that comes along; there must be no rest.
    function aggregate3Value(Call3Value[] calldata calls)
        external
        payable
        returns (Result[] memory returnData)
    {
        uint256 spent = 0;
        returnData = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            Call3Value calldata one = calls[i];
            unchecked {
                // All the ether there is does not make this overflow; a call that asks for more fails.
                spent += one.value;
            }
            Result memory result = _call(one.target, one.value, one.callData);
            if (!result.success && !one.allowFailure) _failPadded();
            returnData[i] = result;
        }
        require(msg.value == spent, "Multicall3: value mismatch");
    }

    function getBlockHash(uint256 blockNumber) external view returns (bytes32 blockHash) {
        return blockhash(blockNumber);
    }

    function getLastBlockHash() external view returns (bytes32 blockHash) {
        unchecked {
            return blockhash(block.number - 1);
        }
    }

    function getBlockNumber() external view returns (uint256 blockNumber) {
        return block.number;
    }

    function getCurrentBlockCoinbase() external view returns (address coinbase) {
        return block.coinbase;
    }

    /// @notice What was the difficulty is the beacon chain's randomness since the merge.
    function getCurrentBlockDifficulty() external view returns (uint256 difficulty) {
        return block.prevrandao;
    }

    function getCurrentBlockGasLimit() external view returns (uint256 gaslimit) {
        return block.gaslimit;
    }

    function getCurrentBlockTimestamp() external view returns (uint256 timestamp) {
        return block.timestamp;
    }

    function getEthBalance(address addr) external view returns (uint256 balance) {
        return addr.balance;
    }

    function getBasefee() external view returns (uint256 basefee) {
        return block.basefee;
    }

    function getChainId() external view returns (uint256 chainid) {
        return block.chainid;
    }

    /// @dev What the contract of that name reverts with here has an empty word after the text.
    function _failPadded() private pure {
        bytes memory data = abi.encodePacked(abi.encodeWithSignature("Error(string)", FAILED), bytes32(0));
        assembly ("memory-safe") {
            revert(add(data, 0x20), mload(data))
        }
    }

    function _call(address target, uint256 value, bytes calldata data) private returns (Result memory result) {
        (result.success, result.returnData) = target.call{value: value}(data);
    }
}
