/// What a request asks for behind its path.
enum HTTPQuery {
    /// A text is an address, or a part of one; more is nobody's.
    static let octetsMax = 64

    /// The text behind `find=`, in small letters, without what is no ASCII that can be printed; empty if there is none.
    static func text(in uri: String) -> String {
        let query = uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false).dropFirst().first ?? ""
        guard let pair = query.split(separator: "&").first(where: { $0.hasPrefix("find=") }) else { return "" }
        var octets: [UInt8] = []
        var rest = pair.utf8.dropFirst("find=".utf8.count)
        while let octet = rest.popFirst(), octets.count < octetsMax {
            guard octet == UInt8(ascii: "%") else {
                octets.append(octet == UInt8(ascii: "+") ? UInt8(ascii: " ") : octet)
                continue
            }
            guard let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else { return "" }
            rest = rest.dropFirst(2)
            octets.append(code)
        }
        return String(decoding: octets.filter { (0x20...0x7E).contains($0) }, as: UTF8.self).lowercased()
    }
}
