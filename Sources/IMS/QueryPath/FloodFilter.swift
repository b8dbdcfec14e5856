import MATRuntime
import MATServer
import MATSignal

/// Has the kernel refuse at a worker's sockets what `MessageFilter` says, and sees to it that of a flood as much comes as the gate and the core
/// can use. Belongs to the worker's thread once that runs.
struct FloodFilter {
    private let descriptors: [Int32]
    private let threads: Int
    private var filter: MessageFilter
    /// Of each kind, by its number.
    private var samplings: [FloodSampling]
    /// What the kernel would not take is tried again: else a filter that was meant for a flood would stay.
    private var isPending = false

    /// Requests without a cookie that one worker answers in a second, each by another: with what they cost some 1 % of a core.
    static let unprovenPerThread = 2000
    /// What cannot be read gets few answers, but is counted.
    private static let unreadablePerThreadMin = 500
    /// Of what the gate lets in, because it takes shares as well and puts off as many.
    private static let perAdmitted = 2

    /// - Parameter keys: random.
    init(descriptors: [Int32], limits: AdmissionLimits, threads: Int, keys: (UInt32, UInt32)) {
        self.descriptors = descriptors
        self.threads = max(1, threads)
        filter = MessageFilter(keys: keys)
        samplings = MessageFilter.Kind.allCases.map { _ in FloodSampling(perSecond: 1) }
        setLimits(limits)
    }

    mutating func setLimits(_ limits: AdmissionLimits) {
        for kind in MessageFilter.Kind.allCases { samplings[kind.rawValue].setBudget(perSecond: Self.budget(kind, limits, threads)) }
    }

    /// What of this kind may come to one worker in a second.
    private static func budget(_ kind: MessageFilter.Kind, _ limits: AdmissionLimits, _ threads: Int) -> Int {
        let strangers = limits.strangersPerSecond.map { $0 / threads } ?? AdmissionGate.strangersPerThread
        return switch kind {
        case .unreadable: max(unreadablePerThreadMin, (limits.oddPerSecond + limits.draftsPerSecond) / threads)
        // As much as the gate lets in of odd ones, and so much more that the flood is seen.
        case .response: max(unreadablePerThreadMin, limits.oddPerSecond / threads)
        case .unproven: max(unprovenPerThread, perAdmitted * strangers)
        case .notify: perAdmitted * strangers
        case .join: perAdmitted * (limits.joinsPerSecond.map { $0 / threads } ?? AdmissionGate.joinsPerThread)
        }
    }

    /// Has the kernel take it.
    func attach() throws(SystemError) {
        let program = filter.program
        for descriptor in descriptors { try program.attach(to: descriptor) }
    }

    /// This datagram has come.
    mutating func came(_ octets: UnsafeRawBufferPointer, from source: IPAddress) {
        // Of responses only those count that nobody asked for, and these are not told by their first octets.
        guard case .sampled(let kind) = MessageFilter.verdict(octets), kind != .response else { return }
        samplings[kind.rawValue].came(line: filter.line(of: source))
    }

    /// A response that nobody asked for has come.
    mutating func cameUnasked(from source: IPAddress) {
        samplings[MessageFilter.Kind.response.rawValue].came(line: filter.line(of: source))
    }

    /// Between batches.
    ///
    /// - Returns: whether anything is sampled, so that it is to be looked at again also if nothing comes.
    mutating func turn(at now: MonotonicTime) -> Bool {
        guard !descriptors.isEmpty else { return false }
        var isSampling = false
        for kind in MessageFilter.Kind.allCases.indices {
            if samplings[kind].turn(at: now) {
                filter.samples[kind] = MessageFilter.Sample(lines: samplings[kind].sampledLines, part: samplings[kind].part)
                isPending = true
            }
            if samplings[kind].sampledLines != 0 { isSampling = true }
        }
        if isPending { isPending = (try? attach()) == nil }
        return isSampling || isPending
    }
}
