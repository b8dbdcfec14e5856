extension OptionTable {
    /// The tables of protocol.md: options of sections 3, 11 and 12, messages of sections 7, 11 and 12. A new option begins as a row here.
    public static let standard = OptionTable(standardOptions, standardMessages)

    public static let standardOptions: [OptionDefinition] = [
        OptionDefinition(.pad, "PAD", .any, .zeros),
        OptionDefinition(.cookie, "COOKIE", .either(8, 24)),
        OptionDefinition(.hoa, "HOA", .exactly(16), .address),
        OptionDefinition(.moa, "MOA", .exactly(16), .address),
        OptionDefinition(.peerHoA, "PEER-HOA", .exactly(16), .address),
        OptionDefinition(
            .mapping, "MAPPING",
            // Locators of either size; whether they fill the value, their count says.
            .steps(from: MappingRecordView.headOctets, by: 4, to: MappingRecordView.octetsMax), .mapping, follower: .signature),
        OptionDefinition(.signature, "SIGNATURE", .exactly(Signature.octetsCount)),
        OptionDefinition(.certificate, "CERTIFICATE", .exactly(Certificate.octetsCount), .prefix, reserved: Certificate.reservedPlace),
        OptionDefinition(.lifetime, "LIFETIME", .exactly(4)),
        OptionDefinition(.subscribe, "SUBSCRIBE", .exactly(4)),
        OptionDefinition(.locatorProof, "LOCATOR-PROOF", .exactly(40), .address, isRepeatable: true),
        OptionDefinition(.observed, "OBSERVED", .exactly(20), .address, reserved: 18..<20),
        OptionDefinition(.certID, "CERT-ID", .exactly(8)),
        OptionDefinition(.text, "TEXT", .upTo(SignalOptions.textOctetsMax), .text),
        OptionDefinition(.xObserved, "XOBSERVED", .exactly(XObserved.octetsCount), .maskedEndpoint, reserved: 18..<20),
        OptionDefinition(.challenge, "CHALLENGE", .exactly(Challenge.octetsCount)),
        OptionDefinition(.pathSignature, "PATH-SIGNATURE", .exactly(Signature.octetsCount)),
        OptionDefinition(
            .candidates, "CANDIDATES",
            .steps(from: Candidate.octetsCount, by: Candidate.octetsCount, to: Candidate.octetsCount * Candidate.countMax), .candidates),
        OptionDefinition(.role, "ROLE", .exactly(4)),
        OptionDefinition(.endpointProof, "ENDPOINT-PROOF", .exactly(44), .address, reserved: 18..<20, isRepeatable: true),
        OptionDefinition(.publicKey, "PUBLIC-KEY", .exactly(PublicKey.octetsCount)),
        OptionDefinition(.tokenProof, "TOKEN-PROOF", .exactly(TokenProof.octetsCount)),
        OptionDefinition(.wanted, "WANTED", .exactly(TokenProof.wantedOctetsCount), .wanted, reserved: 17..<20),
    ]

    public static let standardMessages: [MessageDefinition] = [
        MessageDefinition(.imsUpdate, [.cookie, .mapping], certified: .mapping),
        MessageDefinition(.imsUpdateReply, [.cookie, .observed], needsWith: [.stale: [.mapping]]),
        MessageDefinition(.maQuery, [.cookie, .hoa]),
        MessageDefinition(.maAnswer, [.cookie, .hoa], needsWith: [.notFound: [.lifetime]]),
        MessageDefinition(.haNotify, [.cookie, .hoa, .peerHoA], certified: .mapping),
        MessageDefinition(.haNotifyAck, [.cookie, .hoa]),
        MessageDefinition(.haQuery, [.cookie, .moa]),
        MessageDefinition(.haAnswer, [.cookie, .moa], needsWith: [.ok: [.mapping, .certificate], .notFound: [.lifetime]]),
        MessageDefinition(.maNotify, [.cookie, .mapping], certified: .mapping),
        MessageDefinition(.maNotifyAck, [.cookie, .hoa]),
        // Without HOA it asks, with a signature it binds, without one it refreshes.
        MessageDefinition(.bind, [.cookie], needsBeside: [.pathSignature: [.hoa, .lifetime]], certified: .pathSignature),
        MessageDefinition(.bindAck, [.cookie, .xObserved], needsBeside: [.hoa: [.lifetime, .role]]),
        // Without CHALLENGE they travel in-path, where they are a sign and no proof.
        MessageDefinition(.pathProbe, [.cookie, .hoa, .peerHoA], needsBeside: [.pathSignature: [.challenge]], certified: .pathSignature),
        MessageDefinition(.pathAnswer, [.cookie, .hoa], needsBeside: [.pathSignature: [.xObserved]]),
        // By a token's holder, or by a visitor. Its SIGNATURE signs no MAPPING.
        MessageDefinition(
            .join, [.cookie, .publicKey, .signature], needsBeside: [.hoa: [.certificate]], needsOne: [.tokenProof, .hoa], alone: .signature),
        MessageDefinition(.joinReply, [.cookie], needsWith: [.ok: [.hoa, .certificate, .lifetime]]),
    ]
}
