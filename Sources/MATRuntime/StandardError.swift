import Glibc

/// Writes lines for a person to standard error, unbuffered: `stderr` itself is a global variable, which Swift can't share safely.
public enum StandardError {
    public static func write(_ text: String) {
        let octets = Array((text + "\n").utf8)
        octets.withUnsafeBytes { _ = Glibc.write(2, $0.baseAddress, $0.count) }
    }
}
