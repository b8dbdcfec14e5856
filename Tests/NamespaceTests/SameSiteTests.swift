import Foundation
import Testing

/// Two nodes in one network behind a NAT: what they make of their private addresses. Real translators, real agents.
@Suite("In one network behind a NAT", .serialized, .lab("site"))
struct SameSiteTests {
    static let mn = "192.0.2.10"
    static let mn2 = "192.0.2.11"

    private func path(_ lab: Lab, _ node: String, to peer: String) throws -> String? {
        try lab.peers(node).first { $0["home"] as? String == peer }?["path"] as? String
    }

    private func talk(_ lab: Lab) throws -> Traffic {
        try lab.wait("there is a way", seconds: 20) { try lab.on("mn", "ping", "-c", "1", "-W", "1", Self.mn2).status == 0 }
        return try Traffic(lab, [.init(isIPv4: true, near: "mn", far: "mn2", address: Self.mn2, home: Self.mn)])
    }

    private func bothAre(_ lab: Lab, _ wanted: String) throws -> Bool {
        try path(lab, "mn", to: Self.mn2) == wanted && path(lab, "mn2", to: Self.mn) == wanted
    }

    @Test("Through a NAT that takes packets back in, then straight to each other, and out of it again, connections go on")
    func hairpin() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "hairpin")
        try lab.lab("move", "mn2", "hairpin")
        let traffic = try talk(lab)
        defer { traffic.end() }
        try lab.wait("packets go straight") { try bothAre(lab, "direct") }
        #expect(traffic.goesOn(within: 5) && traffic.ends.isEmpty, "\(traffic.report)\n\(lab.log("mn").suffix(4000))")
        let why = try lab.on("mn", "mat", "why", Self.mn2, "--control", lab.control("mn"))
        #expect(why.text.hasPrefix("\(Self.mn2): direct") && why.text.contains("in this network: proven"), "\(why.text)")
        try lab.lab("move", "mn", "cellular")
        #expect(traffic.goesOn(within: 15) && traffic.ends.isEmpty, "\(traffic.report)\n\(lab.log("mn").suffix(4000))")
        try lab.lab("move", "mn", "hairpin")
        #expect(traffic.goesOn(within: 15) && traffic.ends.isEmpty, "\(traffic.report)\n\(lab.log("mn").suffix(4000))")
        try lab.wait("packets go straight again") { try bothAre(lab, "direct") }
        #expect(traffic.goesOn(within: 5), "\(traffic.report)")
    }

    @Test("In a café whose clients do not reach one another they go on through the NAT")
    func isolated() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "cafe-hairpin")
        try lab.lab("move", "mn2", "cafe-hairpin")
        let traffic = try talk(lab)
        defer { traffic.end() }
        Thread.sleep(forTimeInterval: 3)
        #expect(try bothAre(lab, "encapsulated"))
        #expect(traffic.goesOn(within: 5) && traffic.ends.isEmpty, "\(traffic.report)\n\(lab.log("mn").suffix(4000))")
    }
}
