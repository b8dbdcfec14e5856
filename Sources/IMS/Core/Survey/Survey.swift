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

/// A walk through all that is held, in steps: what happens by time alone is noticed here, and counts are taken that would cost too
/// much to keep with every change.
struct Survey: Sendable {
    /// Entries looked at in one step.
    static let stepEntries = 4096
    /// Certificates named in the log on one day; the rest are counted.
    static let warningsMax = 50

    enum Part: Sendable {
        /// The mappings with their HoAs' newest certificates, from a place in the table's own order on.
        case mappings(from: UInt64)
        /// The certificates of HoAs without a mapping.
        case certificates(after: IPPrefix?)
    }

    /// The Unix time in ms at which this walk began, and the one before: what expired in between expired in this one's time.
    var began: UInt64
    var before: UInt64
    var part = Part.mappings(from: 0)
    var result = SurveyResult()
    /// Whether this walk's certificates are warned of.
    var warns: Bool
    var warned = 0
    /// Certificates that people are told of when the step ends.
    var toTell: [CertificateGlance] = []
}

extension IMSCore {
    /// How often people are told of the same certificate.
    static let certificateWarningInterval: Duration = .seconds(86_400)

    /// The last whole walk's findings.
    public var surveyed: SurveyResult { surveyResult }

    /// Takes the next step of a walk, or the first of the next one.
    ///
    /// - Returns: what to do, and whether the walk goes on; otherwise the next one is for the caller to begin.
    public mutating func survey(now: Now) -> (actions: [IMSAction], goesOn: Bool) {
        var survey = self.survey ?? beginSurvey(now)
        switch survey.part {
        case .mappings(let from):
            var expired: [StoredMapping] = []
            let next = mappings.walkBlocks(from: from, atLeast: Survey.stepEntries) { block in
                if look(at: block, &survey), let mapping = block.stored { expired.append(mapping) }
                let certificate = issued.newer(than: block.notBefore, of: block.prefix).map { CertificateGlance($0) }
                if certificate == nil, block.isRevocation { return }
                look(at: certificate ?? CertificateGlance(block), &survey, now)
            }
            tell(&survey, now)
            for mapping in expired { noteExpiry(of: mapping, now) }
            survey.part = next.map { .mappings(from: $0) } ?? .certificates(after: nil)
        case .certificates(let after):
            let page = issued.unusedPage(after: after, count: Survey.stepEntries)
            for certificate in page where !mappings.contains(certificate.prefix) { look(at: CertificateGlance(certificate), &survey, now) }
            tell(&survey, now)
            guard page.count < Survey.stepEntries else {
                survey.part = .certificates(after: page.last?.prefix)
                break
            }
            endSurvey(survey, now)
            return (takeActions(now), false)
        }
        self.survey = survey
        return (takeActions(now), true)
    }

    private mutating func beginSurvey(_ now: Now) -> Survey {
        let warns = certificatesWarnedAt.map { now.monotonic - $0 >= Self.certificateWarningInterval } ?? true
        if warns { certificatesWarnedAt = now.monotonic }
        // The first walk looks for nothing that expired before the start.
        return Survey(began: now.wallMilliseconds, before: lastSurveyBegan ?? now.wallMilliseconds, warns: warns)
    }

    private mutating func endSurvey(_ survey: Survey, _ now: Now) {
        if survey.warned > Survey.warningsMax {
            log(.warning, "\(survey.warned - Survey.warningsMax) more certificates end within 30 days and were not renewed")
        }
        surveyResult = survey.result
        lastSurveyBegan = survey.began
        self.survey = nil
    }

    /// - Returns: whether it has expired since the walk before.
    private func look(at block: MappingBlock, _ survey: inout Survey) -> Bool {
        if block.isRevocation {
            survey.result.revoked += 1
        } else if block.locatorsCount == 0 {
            survey.result.mappingsWithdrawn += 1
        } else if block.expires <= survey.began {
            survey.result.mappingsExpired += 1
            // Once: a walk's beginning stands for all its moments.
            return block.expires > survey.before
        }
        return false
    }

    private mutating func noteExpiry(of mapping: StoredMapping, _ now: Now) {
        note(
            BindingChange(
                hoa: mapping.record.prefix, reason: .expired, before: mapping.record.locators.map(\.prefix), after: [],
                source: mapping.source, sequence: mapping.record.sequence),
            now)
    }

    /// The newest certificate of an HoA.
    private func look(at certificate: CertificateGlance, _ survey: inout Survey, _ now: Now) {
        survey.result.certificatesByKey[certificate.issuerID, default: 0] += 1
        guard now.wallMilliseconds >= Certificate.warnsFrom(notBefore: certificate.notBefore, notAfter: certificate.notAfter) else { return }
        survey.result.certificatesEnding += 1
        guard now.wallMilliseconds <= certificate.notAfter else {
            survey.result.certificatesEnded += 1
            return
        }
        guard survey.warns else { return }
        survey.warned += 1
        if survey.warned <= Survey.warningsMax { survey.toTell.append(certificate) }
    }

    private mutating func tell(_ survey: inout Survey, _ now: Now) {
        for certificate in survey.toTell {
            let days = (certificate.notAfter - min(certificate.notAfter, now.wallMilliseconds)) / 86_400_000
            log(
                .warning,
                "the certificate of \(certificate.prefix) ends in \(days) days and was not renewed: its node has not registered since, or this server has no signing key"
            )
        }
        survey.toTell = []
    }
}

/// What the walk wants to know of a certificate.
struct CertificateGlance: Sendable {
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
}
