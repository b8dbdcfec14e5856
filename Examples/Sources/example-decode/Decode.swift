import MATSignal

/// example-decode: what the datagrams of MAT's signalling in the standard input say, each a line of hexadecimal digits.
@main
struct Decode {
    static func main() {
        while let line = readLine() {
            guard let octets = octets(line) else {
                print("not hexadecimal")
                continue
            }
            for part in SignalDatagram.decode(octets) {
                switch part {
                case .message(let message, let count): print("\(message.type), \(count) octets, sequence number \(message.sequence): \(message.body)")
                case .draft(let message): print("a message of the draft: \(message)")
                case .rejected(let rejection): print("no message: \(rejection.error)")
                }
            }
        }
    }

    static func octets(_ line: String) -> [UInt8]? {
        let digits = line.compactMap(\.hexDigitValue)
        guard digits.count == line.count, digits.count.isMultiple(of: 2) else { return nil }
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] * 16 + digits[$0 + 1]) }
    }
}
