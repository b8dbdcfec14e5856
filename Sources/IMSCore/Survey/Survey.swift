import MATSignal
import MappingMemory

/// What a look at all mappings and certificates found.
public struct SurveyResult: Hashable, Sendable {
    /// The newest certificates of HoAs by the IMS key that signed them.
    public var certificatesByKey: [UInt64: Int] = [:]
    /// Those that end soon, renewed by nobody; those that have ended are among them.
    public var certificatesEnding = 0
    public var certificatesEnded = 0
    public var revoked = 0
    /// Mappings that nobody renewed in time.
    public var mappingsExpired = 0
    public var mappingsWithdrawn = 0

    public init() {}
}

/// Walks through all that is held, in steps: what happens by time alone is noticed here, and counts are taken that would cost too much to
/// keep with every change.
///
/// ```
///             step                                      the table's end                           the end
///   idle ──────────────► mappings, 4096 in each step ─────────────────► certificates of HoAs ──────────────► idle, with a new result
///                          with their newest certificates                 without a mapping
/// ```
/// People are told of certificates that end soon by one walk in a day.
struct Survey: Sendable {
    /// Entries looked at in one step.
    static let stepEntries = 4096
    /// Certificates named in the log on one day; the rest are counted.
    static let warningsMax = 50
    /// How often people are told of the same certificate.
    static let warningInterval: Duration = .seconds(86_400)

    private enum Part: Sendable {
        /// The mappings with their HoAs' newest certificates, from a place in the table's own order on.
        case mappings(from: UInt64)
        /// The certificates of HoAs without a mapping.
        case certificates(after: IPPrefix?)
    }

    private struct Walk: Sendable {
        /// The Unix time in ms at which this walk began, and the one before: what expired in between expired in this one's time.
        var began: UInt64
        var before: UInt64
        var part = Part.mappings(from: 0)
        var result = SurveyResult()
        /// Whether this walk's certificates are warned of.
        var warns: Bool
        var warned = 0
    }

    private enum State: Sendable {
        case idle
        case walking(Walk)
    }

    private var state = State.idle
    /// Unix time in ms.
    private var lastBegan: UInt64?
    private var warnedAt: MonotonicTime?
    /// The last whole walk's findings.
    private(set) var result = SurveyResult()

    /// What a step found.
    struct OnStep: Sendable {
        /// Warnings for people, in their order.
        var lines: [String] = []
        /// Mappings that nobody renewed and that have expired since the walk before.
        var expired: [StoredMapping] = []
        /// Whether the walk goes on; otherwise the next one is for the caller to begin.
        var goesOn = true
    }

    /// Takes the next step of a walk, or the first of the next one.
    mutating func step(_ registrations: Registrations, _ now: Now) -> OnStep {
        var walk = walk(now)
        var step = OnStep()
        var ending: [CertificateGlance] = []
        switch walk.part {
        case .mappings(let from):
            let certificates = registrations.certificates
            let next = registrations.table.walkBlocks(from: from, atLeast: Self.stepEntries) { block in
                if Self.count(block, &walk), let mapping = block.stored { step.expired.append(mapping) }
                let certificate = certificates.newer(than: block.notBefore, of: block.prefix).map { CertificateGlance($0) }
                if certificate == nil, block.isRevocation { return }
                let newest = certificate ?? CertificateGlance(block)
                if Self.count(newest, &walk, now) { ending.append(newest) }
            }
            walk.part = next.map { .mappings(from: $0) } ?? .certificates(after: nil)
        case .certificates(let after):
            let page = registrations.certificates.unusedPage(after: after, count: Self.stepEntries)
            for certificate in page where !registrations.table.contains(certificate.prefix) {
                let glance = CertificateGlance(certificate)
                if Self.count(glance, &walk, now) { ending.append(glance) }
            }
            if page.count < Self.stepEntries { step.goesOn = false } else { walk.part = .certificates(after: page.last?.prefix) }
        }
        step.lines = ending.map { $0.warning(now) }
        if step.goesOn {
            state = .walking(walk)
        } else {
            if walk.warned > Self.warningsMax {
                step.lines.append("\(walk.warned - Self.warningsMax) more certificates end within 30 days and were not renewed")
            }
            result = walk.result
            lastBegan = walk.began
            state = .idle
        }
        return step
    }

    /// The walk that is under way, or a new one.
    private mutating func walk(_ now: Now) -> Walk {
        if case .walking(let walk) = state { return walk }
        let warns = warnedAt.map { now.monotonic - $0 >= Self.warningInterval } ?? true
        if warns { warnedAt = now.monotonic }
        // The first walk looks for nothing that expired before the start.
        return Walk(began: now.wallMilliseconds, before: lastBegan ?? now.wallMilliseconds, warns: warns)
    }

    /// - Returns: whether it has expired since the walk before.
    private static func count(_ block: MappingBlock, _ walk: inout Walk) -> Bool {
        if block.isRevocation {
            walk.result.revoked += 1
        } else if block.locatorsCount == 0 {
            walk.result.mappingsWithdrawn += 1
        } else if block.expires <= walk.began {
            walk.result.mappingsExpired += 1
            // Once: a walk's beginning stands for all its moments.
            return block.expires > walk.before
        }
        return false
    }

    /// - Parameter certificate: the newest of an HoA.
    /// - Returns: whether people are to be told of it.
    private static func count(_ certificate: CertificateGlance, _ walk: inout Walk, _ now: Now) -> Bool {
        walk.result.certificatesByKey[certificate.issuerID, default: 0] += 1
        guard now.wallMilliseconds >= Certificate.warnsFrom(notBefore: certificate.notBefore, notAfter: certificate.notAfter)
        else {
            return false
        }
        walk.result.certificatesEnding += 1
        guard now.wallMilliseconds <= certificate.notAfter else {
            walk.result.certificatesEnded += 1
            return false
        }
        guard walk.warns else { return false }
        walk.warned += 1
        return walk.warned <= warningsMax
    }
}

/// What the walk wants to know of a certificate.
private struct CertificateGlance: Sendable {
    var prefix: IPPrefix
    /// Unix times in ms.
    var notBefore: UInt64
    var notAfter: UInt64
    var issuerID: UInt64

    init(_ certificate: Certificate) {
        prefix = certificate.prefix
        notBefore = certificate.notBefore
        notAfter = certificate.notAfter
        issuerID = certificate.issuerID
    }

    init(_ block: MappingBlock) {
        prefix = block.prefix
        notBefore = block.notBefore
        notAfter = block.notAfter
        issuerID = block.issuerID
    }

    func warning(_ now: Now) -> String {
        let days = (notAfter - min(notAfter, now.wallMilliseconds)) / 86_400_000
        return
            "the certificate of \(prefix) ends in \(days) days and was not renewed: its node has not registered since, or this server has no signing key"
    }
}
