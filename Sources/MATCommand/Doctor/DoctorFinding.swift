/// One thing that `mat doctor` looked at: what is so, how bad that is, and what to do about it.
struct DoctorFinding: Codable, Hashable, Sendable {
    enum Severity: String, Codable, Hashable, Sendable, CaseIterable {
        case ok
        /// Worth knowing, and nothing to mend.
        case note
        /// It works, or some of it; a person should look.
        case warning
        /// Something does not work.
        case problem
    }

    var severity: Severity
    /// A word or two: clock, DNS, registration.
    var subject: String
    var text: String
    /// What to do; `nil` for what is in order.
    var remedy: String?

    init(_ severity: Severity, _ subject: String, _ text: String, remedy: String? = nil) {
        self.severity = severity
        self.subject = subject
        self.text = text
        self.remedy = remedy
    }
}

/// What `mat doctor` prints.
struct DoctorReport: Codable, Hashable, Sendable {
    var findings: [DoctorFinding]

    /// What ended in a problem ends the command with 1.
    var hasProblem: Bool { findings.contains { $0.severity == .problem } }
}
