import Glibc
import IMTKernel
import IMTPlan
import MATControl
import MATRuntime
import MATSignal
import NodeCore

// `mat run`, `mat attach` and `mat ps`: programs whose sockets start from other addresses than those of the rest of the host.

/// A program that is to start from visited homes, until there are some.
struct StartingProgram {
    let process: ProcessHandle
    var homes: AwaitedHomes
    let respond: (ControlResponse) -> Void
}

extension NodeService {
    /// Answers when its sockets start from there, or why they don't.
    func steer(_ request: SteerRequest, by asker: ControlRequest, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        let process = try process(of: request, by: asker)
        guard request.via == .visited else { return respond(.result(try steer(process, via: try via(of: request)))) }
        try start(process, asker.connection, respond)
    }

    private func process(of request: SteerRequest, by asker: ControlRequest) throws(ControlError) -> ProcessHandle {
        let number = request.process ?? asker.peerProcess
        guard number > 0 else { throw ControlError("matd does not see the process that asks: it is in a PID namespace of its own (a container)") }
        let named = request.process == nil && asker.peerDescriptor >= 0 ? fcntl(asker.peerDescriptor, F_DUPFD_CLOEXEC, 3) : -1
        guard let process = ProcessHandle(number, descriptor: named >= 0 ? named : nil) else { throw ControlError("there is no process \(number)") }
        guard process.maySteer(asker.peerUID) else {
            throw ControlError(
                process.isAlive ? "process \(number) is another user's; only root may attach others' programs" : "there is no process \(number)")
        }
        if let network = request.network, network != IMTKernel.networkNamespace {
            throw ControlError("process \(number) is in another network namespace than matd, whose addresses it can't have")
        }
        return process
    }

    private func steer(_ process: ProcessHandle, via: ProgramVia) throws(ControlError) -> SteerReport {
        do throws(SteerRefusal) {
            try environment.kernel.steer(process, via: via)
        } catch {
            throw ControlError(error.description)
        }
        return SteerReport(process: process.number, via: word(via), homes: via.homes.map(\.description))
    }

    private func word(_ via: ProgramVia) -> SteerRequest.Via {
        if via == .plain { return .plain }
        return via.homes.contains(where: environment.kernel.isVisited) ? .visited : .home
    }

    // MARK: From visited homes

    private func start(_ process: ProcessHandle, _ connection: UInt64, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        let families = Set(configuration.homes.map(\.hoa.family))
        guard !families.isEmpty else { throw ControlError("this node has no home address, beside which it could have a visited one") }
        guard startingPrograms[connection] == nil, control?.hold(connection) == true else {
            throw ControlError("too many programs wait for visited homes, or have some")
        }
        startingPrograms[connection] = StartingProgram(process: process, homes: AwaitedHomes(families), respond: respond)
        for family in families.sorted() {
            shell.run { node, now in node.visit(.starting(connection: connection, family), family, now: now) }
        }
    }

    func answered(starting connection: UInt64, _ family: AddressFamily, _ answer: VisitAnswer) {
        guard let outcome = startingPrograms[connection]?.homes.answered(family, answer),
            let program = startingPrograms.removeValue(forKey: connection)
        else { return }
        switch outcome {
        case .homes(let homes):
            do throws(ControlError) {
                program.respond(.result(try steer(program.process, via: try self.homes(homes.map(\.description)))))
            } catch {
                program.respond(.failed(error.description))
            }
        case .refused(let reason): program.respond(.failed("no visited home: \(reason)"))
        }
        endStarting(connection)
    }

    /// It has its homes as those that are steered have them, or none.
    func endStarting(_ connection: UInt64) {
        startingPrograms[connection] = nil
        if !visitingPrograms.contains(connection), askingPrograms[connection] == nil { control?.release(connection) }
        for family in AddressFamily.allCases {
            shell.run { node, now in node.endVisit(.starting(connection: connection, family), now: now) }
        }
    }

    private func via(of request: SteerRequest) throws(ControlError) -> ProgramVia {
        switch request.via {
        case .plain: return .plain
        case .home: return try homes(request.homes ?? [])
        case .gateway:
            // Whether a plain host is reached by a gateway belongs to the host, for all that talk to it.
            guard configuration.plain.standard != .none else {
                throw ControlError(
                    "matd.yaml says `plain: none`: whether plain hosts are reached by a gateway is decided for each host, not for each program; "
                        + "set plain: gateway, with `none` for hosts that are to be reached without")
            }
            return try homes(request.homes ?? [])
        case .visited: throw ControlError("this is a fault of matd: a visited home is waited for")
        }
    }

    /// The HoAs named, and the first of each family that is not.
    private func homes(_ texts: [String]) throws(ControlError) -> ProgramVia {
        let usable = environment.kernel.usableHomes
        var homes: [HomeAddress] = []
        for text in texts {
            guard let home = HomeAddress(text), usable.contains(home) else {
                throw ControlError("\(text) is no home address of this node; `mat status` lists them")
            }
            homes.append(home)
        }
        for family in AddressFamily.allCases where !homes.contains(where: { $0.family == family }) {
            if let first = usable.first(where: { $0.family == family }) { homes.append(first) }
        }
        guard let via = ProgramVia(homes: homes) else { throw ControlError("give one home address of each family at most") }
        return via
    }

    // MARK: Who is there

    func programsReport(_ now: Now) throws(ControlError) -> ProgramsReport {
        let sockets: [SteeredSocket]
        do throws(KernelError) {
            sockets = try environment.kernel.steeredSockets()
        } catch {
            throw ControlError("\(error)")
        }
        var groups: [ProgramsReport.Group] = []
        for group in environment.kernel.steeredGroups() {
            if let known = groups.firstIndex(where: { $0.mark == group.mark }) {
                groups[known].groups.append(group.path)
                Self.add(group.processes, to: &groups[known])
                continue
            }
            let own = sockets.filter { $0.mark == group.mark }
            let shown = own.prefix(ProgramsReport.Group.shownMax)
            var report = ProgramsReport.Group(
                via: word(group.via), homes: group.via.homes.map(\.description), mark: group.mark, groups: [group.path],
                programs: [], sockets: shown.map { socket($0, now) }, furtherSockets: own.count - shown.count)
            Self.add(group.processes, to: &report)
            groups.append(report)
        }
        return ProgramsReport(groups: groups)
    }

    private static func add(_ processes: [Int32], to group: inout ProgramsReport.Group) {
        let shown = processes.prefix(ProgramsReport.Group.shownMax - group.programs.count)
        group.programs += shown.compactMap(program)
        group.furtherPrograms += processes.count - shown.count
    }

    private static func program(_ process: Int32) -> ProgramsReport.Program? {
        guard let (command, user) = ProcessHandle.description(of: process) else { return nil }
        let shown = command.printable.prefix(ProgramsReport.Program.commandCharactersMax)
        return ProgramsReport.Program(process: process, user: user, command: String(shown))
    }

    private func socket(_ socket: SteeredSocket, _ now: Now) -> ProgramsReport.Socket {
        var report = ProgramsReport.Socket(
            kind: socket.kind.rawValue, state: Self.states[Int(socket.state), default: "\(socket.state)"], local: "\(socket.local)",
            remote: socket.remote.map { "\($0)" }, path: nil, locator: nil, reason: nil, user: socket.user, inode: socket.inode, process: nil)
        let own = HomeAddress(socket.local.address)
        guard let remote = socket.remote, environment.kernel.usableHomes.contains(own),
            let explanation = shell.node.cores.explain(HomeAddress(remote.address), from: own, now: now)
        else { return report }
        let used = explanation.candidates.first(where: \.isUsed)
        report.path = used.map { PeerReport.Path($0.kind) }
        report.locator = used.map { "\($0.kind == .direct ? "\($0.place.address)" : "\($0.place)")" }
        report.reason = used == nil ? explanation.problem : nil
        return report
    }

    /// As ss(8) says them; datagram sockets have the first and the seventh.
    private static let states: [Int: String] = [
        1: "established", 2: "syn-sent", 4: "fin-wait-1", 5: "fin-wait-2", 7: "unconnected", 8: "close-wait", 9: "last-ack", 10: "listen",
        11: "closing",
    ]
}
