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
            "this host's clock is",
            "set this host's clock (`timedatectl set-ntp true`, or `date -s` once); matd then registers by itself within a minute. If this clock is right, the server's is wrong: tell its operator"
        ),
        (
            "taken while a clock was wrong",
            "if this host's clock is right, have the operator of the IMS run `mat ims revoke HOA` and `mat enrol HOA` again, install the certificate, and restart matd"
        ),
        (
            "that another key signed",
            "`mat ims show HOA` at the IMS shows whose key has the address now; have its operator enrol this node under another address, or this one again with `mat enrol HOA --force`"
        ),
        ("is a clock wrong", "compare this host's clock with the server's, and set the wrong one; matd registers by itself when they agree"),
        (
            "superseded",
            "a newer certificate of this address was issued: install that one here, or have the operator of the IMS enrol this node's key again (`mat enrol HOA --force`), and restart matd"
        ),
        (
            "authentication failed",
            "have the operator of the IMS enrol this node's key again (`mat enrol HOA`), install the certificate, and restart matd"
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
        (
            "not of global scope",
            "if the network routes it to the peers without translation, name its prefix under `routed` in matd.yaml, here and there; else this node needs a network that gives it a global address"
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
