extension OptionTable {
    /// The tables of protocol.md: options of section 3, messages of section 7. A new option begins as a row here.
    public static let standard = OptionTable(standardOptions, standardMessages)

    public static let standardOptions: [OptionDefinition] = [
        OptionDefinition(.pad, "PAD", .any, .zeros),
        OptionDefinition(.cookie, "COOKIE", .either(8, 24)),
        OptionDefinition(.hoa, "HOA", .exactly(16), .address),
        OptionDefinition(.moa, "MOA", .exactly(16), .address),
        OptionDefinition(.peerHoA, "PEER-HOA", .exactly(16), .address),
        OptionDefinition(
            .mapping, "MAPPING",
            .steps(
                from: MappingRecordView.headOctets, by: MappingRecordView.locatorOctets,
                to: MappingRecordView.headOctets + MappingRecord.locatorsMax * MappingRecordView.locatorOctets),
            .mapping, follower: .signature),
        OptionDefinition(.signature, "SIGNATURE", .exactly(Signature.octetsCount)),
        OptionDefinition(.certificate, "CERTIFICATE", .exactly(Certificate.octetsCount), .prefix, reserved: Certificate.reservedPlace),
        OptionDefinition(.lifetime, "LIFETIME", .exactly(4)),
        OptionDefinition(.subscribe, "SUBSCRIBE", .exactly(4)),
        OptionDefinition(.locatorProof, "LOCATOR-PROOF", .exactly(40), .address, isRepeatable: true),
        OptionDefinition(.observed, "OBSERVED", .exactly(20), .address, reserved: 18..<20),
        OptionDefinition(.certID, "CERT-ID", .exactly(8)),
        OptionDefinition(.text, "TEXT", .upTo(SignalOptions.textOctetsMax), .text),
    ]

    public static let standardMessages: [MessageDefinition] = [
        MessageDefinition(.imsUpdate, [.cookie, .mapping], isCertified: true),
        MessageDefinition(.imsUpdateReply, [.cookie, .observed], needsWith: [.stale: [.mapping]]),
        MessageDefinition(.maQuery, [.cookie, .hoa]),
        MessageDefinition(.maAnswer, [.cookie, .hoa], needsWith: [.notFound: [.lifetime]]),
        MessageDefinition(.haNotify, [.cookie, .hoa, .peerHoA], isCertified: true),
        MessageDefinition(.haNotifyAck, [.cookie, .hoa]),
        MessageDefinition(.haQuery, [.cookie, .moa]),
        MessageDefinition(.haAnswer, [.cookie, .moa], needsWith: [.ok: [.mapping, .certificate], .notFound: [.lifetime]]),
        MessageDefinition(.maNotify, [.cookie, .mapping], isCertified: true),
        MessageDefinition(.maNotifyAck, [.cookie, .hoa]),
    ]
}
