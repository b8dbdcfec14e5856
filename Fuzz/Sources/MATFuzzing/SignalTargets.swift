import MATSignal

extension FuzzTarget {
    /// Datagrams of the signalling protocol: what can be read comes back the same when it is written.
    static let signal = FuzzTarget("signal", "signalling datagrams: messages, options, draft bodies", octetsMax: 1300) {
        octets throws(BrokenProperty) in
        var start = 0
        for part in SignalDatagram.decode(octets) {
            switch part {
            case .message(let message, let octetsCount):
                let written = message.octets
                try expect(
                    SignalDatagram.decode(written) == [.message(message, octetsCount: written.count)],
                    "\(message.type) does not come back as it was written")
                // In the order in which we write, and without options that we skip, the body is what was read.
                let read = Array(octets[start..<start + octetsCount])
                if kinds(read) == kinds(written) {
                    try expect(read.dropFirst(8) == written.dropFirst(8), "\(message.type) is not written as it was read")
                }
                start += octetsCount
            case .draft(let draft):
                try expect(SignalDatagram.decode(draft.octets) == [.draft(draft)], "a draft message does not come back as it was written")
                start += draft.octets.count
            case .rejected(let rejection):
                try expect(rejection.answerCode == nil || rejection.cookie != nil, "an answer without a cookie is asked for")
                // An unknown type or option is stepped over; its length stands in its header.
                if start + 8 <= octets.count { start += Int(octets[start + 3]) * 4 }
            }
        }
    }

    /// Signalling inside encapsulated packets, which zeros may follow: it reads as if they were not there.
    static let inPath = FuzzTarget("in-path", "signalling inside encapsulated packets, filled with zeros", octetsMax: 1472) {
        octets throws(BrokenProperty) in
        let parts = SignalDatagram.decode(octets, isInPath: true)
        var start = 0
        for part in parts {
            guard case .message(let message, let octetsCount) = part else { return }
            start += octetsCount
            guard message == parts.firstMessage else { continue }
            let filled = SignalDatagram.fill(octets.count, with: message)
            try expect(
                SignalDatagram.decode(filled, isInPath: true) == [.message(message, octetsCount: message.octets.count)],
                "\(message.type) does not come back from a packet that it fills")
        }
        try expect(octets.dropFirst(start).allSatisfy { $0 == 0 }, "octets behind the last message were passed over, and are not zeros")
        try expect(
            SignalDatagram.decode(Array(octets.prefix(start)), isInPath: true) == parts, "without the zeros behind it the datagram reads otherwise")
    }

    /// The kinds of the options that stand in a message, in their order.
    private static func kinds(_ message: [UInt8]) -> [UInt16] {
        var kinds: [UInt16] = []
        var place = 8
        while place + 4 <= message.count {
            kinds.append(UInt16(message[place]) << 8 | UInt16(message[place + 1]))
            let length = Int(message[place + 2]) << 8 | Int(message[place + 3])
            place += 4 + (length + 3) & ~3
        }
        return kinds
    }

    /// Records and certificates as they are stored.
    static let records = FuzzTarget("records", "MAPPING and CERTIFICATE values, as stores keep them", octetsMax: 512) {
        octets throws(BrokenProperty) in
        if let record = try? MappingRecord(octets: octets) {
            try expect(record.octets == octets, "a MAPPING is not written as it was read")
            try expect(record.places.count <= MappingRecord.locatorsMax, "a MAPPING with too many locators")
            try expect(record.relays.count <= MappingRecord.relaysMax, "a MAPPING with too many relays")
            try expect(record.octetsCount == octets.count, "a MAPPING that counts its octets wrong")
            try expect(!record.isAtHome || !record.hasKinds, "a node at home that lists endpoints")
            for endpoint in record.endpoints + record.relays { try expect(endpoint.port != 0, "an endpoint with port 0") }
            for endpoint in record.endpoints { try expect(record.lists(endpoint), "a record does not list its own endpoint") }
            try expect(record.expires >= record.issued, "a record that expires before it is issued")
            for locator in record.locators {
                try expect(record.lists(locator.moa), "a record does not list its own locator")
                for moa in record.moas(of: record.hoa) { _ = record.hoa(at: moa) }
            }
            // Times far off must be refused and not overflow.
            for wall in [UInt64.zero, 1_790_000_000_000, record.issued] where wall < UInt64.max / 2 {
                let signed = SignedMapping(record: record, signature: Self.anySignature)
                let key = Self.anyCertificate.key
                try? signed.checkTimesAndNames(
                    under: key, of: record.prefix, asked: record.hoa, now: Now(monotonic: .zero, wallMilliseconds: wall))
            }
        }
        if let certificate = try? Certificate(octets: octets) {
            try expect(certificate.octets == octets, "a CERTIFICATE is not written as it was read")
            _ = (certificate.id, certificate.prefix, certificate.isIssued(by: certificate.nodeKey))
        }
    }
}

extension [SignalDatagram.Part] {
    fileprivate var firstMessage: SignalMessage? {
        if case .message(let message, _)? = first { message } else { nil }
    }
}
