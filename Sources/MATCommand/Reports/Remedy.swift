/// What to do about a problem that matd reports. The daemon says what it met on the wire; what that usually means is known here.
enum Remedy {
    private static let known: [(sign: String, remedy: String)] = [
        (
            "no IMS record",
            "`mat lookup HOA` shows what DNS says; the operator of the home prefix adds the lines of `mat zone` to its reverse zone"
        ),
        ("looking up the IMS", "check the resolver (`dns` in matd.yaml, else /etc/resolv.conf), then `mat lookup HOA`"),
        (
            "no answer from",
            "UDP from port 6289 to port 6288 of these servers must pass, and back; `mat lookup HOA` tries another port"
        ),
        (
            "authentication failed",
            "check this host's clock, then enrol again: the certificate is expired, superseded or for another key"
        ),
        ("not authoritative", "DNS names a server that does not serve this address; `mat lookup HOA` shows which"),
        ("try later", "the server is busy or this node registers too often; matd repeats by itself"),
        (
            ": refused",
            "the server did not see this node at the mobile address it claims: a translator (NAT) between them, or a source port other than 6289"
        ),
        (
            "address, which proving",
            "give the server an address of that family in DNS, or take this family's addresses out of `interfaces`"
        ),
        (
            "no mobile address is left",
            "give this host one more address of the family on some link, or divide those there are with `use` under `home-addresses` in matd.yaml"
        ),
        ("could not be signed", "make the key anew with `mat keygen`, and enrol again"),
        ("unsupported", "node and server are of different versions; bring both to the same"),
    ]

    static func of(_ problem: String, home: String) -> String {
        let found =
            known.first { problem.contains($0.sign) }?.remedy
            ?? "`mat lookup HOA` shows how far a look-up gets; `journalctl -u matd` has the rest"
        guard let place = found.firstRange(of: "HOA") else { return found }
        return found.replacingCharacters(place, with: home)
    }
}

extension String {
    fileprivate func replacingCharacters(_ range: Range<String.Index>, with text: String) -> String {
        String(self[..<range.lowerBound]) + text + String(self[range.upperBound...])
    }
}
