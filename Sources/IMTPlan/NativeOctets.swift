/// Octets of a number as the kernel's structures hold it: in the machine's byte order.
package func nativeOctets<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value) { Array($0) }
}
