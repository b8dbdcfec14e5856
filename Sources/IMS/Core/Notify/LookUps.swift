import MATCore
import MATDNS
import MATSignal

// Servers and keys from DNS, shared by all procedures in progress.

extension IMSCore {
    /// What DNS says at the name, if it is known. Otherwise the look-up is begun, and `advance` is called for the HoA when it ends.
    mutating func lookUp(_ name: IPPrefix, for hoa: HomeAddress, _ now: Now) -> IMSLookupResult? {
        switch lookUps[name] {
        case .ended(let result, let until)? where until > now.monotonic:
            return result
        case .inProgress(var waiting)?:
            waiting.insert(hoa)
            lookUps[name] = .inProgress(waiting: waiting)
            return nil
        default:
            // What is known already gives way; what is being asked does not.
            guard
                lookUps[name] != nil || lookUps.count < configuration.limits.lookUpsMax
                    || lookUps.removeOldest(within: LookUp.stepsToRoomMax, where: { !$1.isInProgress })
            else { return .failed("too many look-ups at once") }
            lookUps.use(name, .inProgress(waiting: [hoa]))
            actions.append(.lookUp(name))
            return nil
        }
    }

    mutating func finishLookUp(_ name: IPPrefix, _ result: IMSLookupResult, _ now: Now) {
        guard case .inProgress(let waiting)? = lookUps[name] else { return }
        let until: MonotonicTime
        switch result {
        case .found(let set): until = min(set.expires, now.monotonic + LookUp.ageMax)
        case .absent(let end): until = min(end, now.monotonic + LookUp.ageMax)
        case .failed, .unusable: until = now.monotonic + LookUp.failureAge
        }
        // Even a record without a lifetime serves those who asked for it.
        lookUps.use(name, .ended(result, until: max(until, now.monotonic + .milliseconds(1))))
        for hoa in waiting.sorted() { advance(hoa, now) }
    }

    /// The IMS keys at the certificate's own name: keys found anywhere else prove nothing.
    ///
    /// - Returns: `nil` while they are being looked up.
    mutating func keys(for certificate: Certificate, of hoa: HomeAddress, _ now: Now) -> Result<[PublicKey], VerificationFailure>? {
        if configuration.served(covering: certificate.prefix) != nil { return .success(configuration.publicKeys) }
        switch lookUp(certificate.prefix, for: hoa, now) {
        case nil: return nil
        case .found(let set)?: return .success(set.keys.compactMap(PublicKey.init))
        case .absent?: return .failure(VerificationFailure("DNS has no IMS key at \(certificate.prefix)"))
        case .failed(let reason)?, .unusable(let reason)?:
            return .failure(VerificationFailure("look-up of the IMS keys at \(certificate.prefix) failed: \(reason)"))
        }
    }
}
