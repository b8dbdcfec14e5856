import MATSignal
import MappingMemory

// Taking over what another server, or this one before, exported. The caller has checked it (`TransferCheck`).

/// What becomes of one imported thing.
package enum ImportStep: Sendable {
    /// The ticket's write decides.
    case written(StoreTicket)
    case same
    case older
    case refused(String)
}

/// Whether an imported thing is to be written.
enum OnImport: Sendable {
    case write(PendingWrite)
    case leave(ImportStep)
}

extension ServerView {
    /// The mapping is written if it is newer than what is held.
    func judge(imported mapping: StoredMapping) -> OnImport {
        if let refusal = store.refusalForOperators { return .leave(.refused(refusal)) }
        let prefix = mapping.record.prefix
        let newest = registrations.newest(of: prefix)
        if let newest {
            if newest.certified == mapping.certified { return .leave(.same) }
            guard newest.certified.version < mapping.certified.version else { return .leave(.older) }
        }
        if let known = registrations.certificates[prefix], mapping.certified.certificate.notBefore < known.notBefore {
            return .leave(.older)
        }
        guard registrations.hasRoomForWrite(limits) else { return .leave(.refused("too many writes are waiting for the store")) }
        guard newest != nil || registrations.count < limits.mappingsMax else {
            return .leave(.refused("the table of \(limits.mappingsMax) mappings is full"))
        }
        if let refusal = registrations.memoryRefusal(for: mapping.record) { return .leave(.refused("no memory for it: \(refusal)")) }
        return .write(PendingWrite(mapping: mapping))
    }

    /// The certificate is written if it is newer than what is known of its HoA.
    func judge(imported certificate: Certificate) -> OnImport {
        if let refusal = store.refusalForOperators { return .leave(.refused(refusal)) }
        if let known = registrations.certificates[certificate.prefix], known.notBefore >= certificate.notBefore {
            return .leave(known == certificate ? .same : .older)
        }
        guard registrations.hasRoomForWrite(limits) else { return .leave(.refused("too many writes are waiting for the store")) }
        return .write(PendingWrite(issued: certificate))
    }
}
