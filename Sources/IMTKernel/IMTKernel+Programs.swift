import CLinux
import Glibc
import IMTPlan
import KernelPrograms
import MATRuntime
import MATSignal

/// Why a program's sockets can't be steered, for the person who wants it.
public struct SteerRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// Programs in one control group of ours.
public struct SteeredGroup: Hashable, Sendable {
    public var via: ProgramVia
    /// Of the sockets that they make.
    public var mark: UInt32
    /// The group's path below the mount.
    public var path: String
    public var processes: [Int32]
}

// Programs whose sockets start from other addresses than those of the rest of the host. A program in a control group marks sockets when they are
// made; the rules of `RoutePlan+Programs` ask for the mark. Groups, marks and rules outlive the agent, and the next start finds them again.
extension IMTKernel {
    /// Where the host's control groups are; `nil` if it has none of version 2.
    private var mount: String? {
        groupMount = groupMount ?? GroupMount()
        return groupMount?.path
    }

    /// How often processes that a program starts while it is being moved out of its group are looked for.
    private static let triesMax = 100

    /// Whether some program starts from a HoA, whatever `traffic` says: then plain hosts may see source NAT.
    var capturesForPrograms: Bool { configuration.traffic != .nothing || programs.marks.values.contains { $0 != .plain } }

    // MARK: Begin and end

    /// Takes over what an earlier run has left: programs that still run go on, what has none is removed.
    func adoptPrograms() {
        guard let mount else { return }
        for (path, name) in Self.ourGroups(mount, configuration.mark) {
            let group = ControlGroup(path: mount + path)
            guard group.isUsed, programs.found(path, name) else {
                if !group.remove() {
                    onEvent(
                        .warning(
                            "programs in the control group \(path) start from the addresses of the rest of the host now: its name can't be theirs"))
                }
                continue
            }
            let unknown = name.via.homes.filter { !configuration.allHomes.contains($0) }
            if !unknown.isEmpty {
                let names = unknown.map(\.description).joined(separator: ", ")
                onEvent(.warning("\(group.processes.count) programs were started as \(names), which is no home address of this node any more"))
            }
            follow(path, mount)
        }
    }

    /// Those with a process in them.
    var groupsInUse: [(path: String, name: GroupName)] {
        mount.map { mount in Self.ourGroups(mount, configuration.mark).filter { ControlGroup(path: mount + $0.path).isUsed } } ?? []
    }

    /// The homes that programs start from.
    public var steeredHomes: Set<HomeAddress> { Set(programs.marks.values.flatMap(\.homes)) }

    /// Groups of this network namespace's agent, in order.
    private static func ourGroups(_ mount: String, _ mark: UInt32) -> [(path: String, name: GroupName)] {
        let network = ProgramDirectory.networkNamespace
        var found: [(String, GroupName)] = []
        func look(_ group: ControlGroup, _ depth: Int) {
            guard depth < GroupPlace.depthMax else { return }
            for each in group.within {
                let last = each.path.split(separator: "/").last ?? ""
                if let name = GroupName.parse(last), name.network == network, name.mark >> 16 == mark & 0xFFFF, each.isOwn {
                    found.append((String(each.path.dropFirst(mount.count)), name))
                } else {
                    look(each, depth + 1)
                }
            }
        }
        look(ControlGroup(path: mount), 0)
        return found
    }

    /// Lets all programs go, and takes their groups away with what was tied to them.
    func removePrograms() {
        groupWatch = nil
        guard let mount else { return }
        for (path, _) in Self.ourGroups(mount, configuration.mark) {
            let group = ControlGroup(path: mount + path)
            // What a process starts before it is moved is in the group too.
            for _ in 0..<Self.triesMax where group.isUsed { group.processes.forEach { Self.letGo($0, mount, from: GroupPlace.parent(path)) } }
            if !group.remove() { onEvent(.warning("the control group \(path) can't be removed: something is in it")) }
        }
        programs = SteeredPrograms(mark: configuration.mark)
    }

    /// Into the nearest group that takes it, from that one on upwards.
    private static func letGo(_ process: Int32, _ mount: String, from path: String) {
        for place in GroupPlace.candidates(from: path) where (try? ControlGroup(path: mount + place).take(process)) != nil { return }
    }

    // MARK: One program

    /// The network namespace that this process is in, by the number of /proc/PID/ns/net.
    public static var networkNamespace: UInt64 { ProgramDirectory.networkNamespace }

    /// The HoAs that programs can start from, in the order of the configuration; visited ones after them.
    public var usableHomes: [HomeAddress] { configuration.allHomes.filter { homes.usable.contains($0.address) } }

    public func isVisited(_ home: HomeAddress) -> Bool { configuration.visitedHomes.contains(home) }

    /// Has the sockets that a process makes from now on, and those of what it starts, start from other addresses.
    public func steer(_ process: ProcessHandle, via: ProgramVia) throws(SteerRefusal) {
        guard let mount else {
            throw SteerRefusal(
                "this host has no control groups of version 2: mount -t cgroup2 none /sys/fs/cgroup, or a directory of its own beside version 1")
        }
        for home in via.homes where !homes.usable.contains(home.address) {
            throw SteerRefusal("\(home) is no home address of this node; `mat status` lists them")
        }
        guard let present = process.group else {
            throw SteerRefusal(
                process.isAlive
                    ? "matd does not see which control group process \(process.number) is in; is it in a container, or /proc hidden (ProtectProc= in the unit)?"
                    : "process \(process.number) has ended")
        }
        let network = ProgramDirectory.networkNamespace
        let base = GroupPlace.base(of: present, network: network)
        guard programs.hasRoomForGroup, let mark = programs.mark(for: via) else {
            throw SteerRefusal("there are \(SteeredPrograms.groupsMax) groups of such programs already; `mat ps` lists them")
        }
        do throws(SteerRefusal) {
            // Rules first: a socket that is made at once uses them.
            do throws(KernelError) { try writeRoutes() } catch { throw SteerRefusal("\(error)") }
            let name = GroupName(network: network, mark: mark, via: via).write()
            let path = try enter(process, mount, base, name, mark)
            programs.entered(path, mark: mark)
            onEvent(.programs(steeredHomes))
            follow(path, mount)
        } catch {
            if programs.release(mark) { _ = try? writeRoutes() }
            throw error
        }
        guard process.isAlive else {
            // Its number may be another's by now, who asked for nothing.
            Self.letGo(process.number, mount, from: base)
            throw SteerRefusal("process \(process.number) has ended")
        }
    }

    /// Puts a process into the group of that name, below the one that it was in. From one that is its user's own, which this process has no power over,
    /// it is the next one higher up: whoever limits a user does so in a group that is not the user's. Never past one that is the host's.
    /// - Returns: the group's path.
    private func enter(_ process: ProcessHandle, _ mount: String, _ base: String, _ name: String, _ mark: UInt32) throws(SteerRefusal) -> String {
        var first: ProgramError?
        for place in GroupPlace.candidates(from: base) {
            let path = GroupPlace.child(place, name)
            let group = ControlGroup(path: mount + path)
            let isLast = ControlGroup(path: mount + place).isOwn
            do throws(ProgramError) {
                try group.make()
            } catch {
                first = first ?? error
                if isLast { break }
                continue
            }
            do throws(ProgramError) {
                try group.tie(mark: mark, network: networkCookie)
            } catch {
                if !programs.contains(path) { group.remove() }
                throw SteerRefusal("the kernel does not let sockets of programs be marked: \(error)\(Self.tieHint(error.errno))")
            }
            do throws(ProgramError) {
                try group.take(process.number)
                return path
            } catch {
                if !programs.contains(path) { group.remove() }
                first = first ?? error
            }
            if isLast { break }
        }
        throw SteerRefusal(
            first.map { "\($0.operation): \(String(cString: strerror($0.errno)))\(Self.placeHint($0.errno))" } ?? "there is no control group")
    }

    private static func tieHint(_ number: Int32) -> String {
        switch number {
        case EPERM: ", and a program that somebody else has tied to a control group above it may forbid it (`ip vrf exec` does)"
        case EINVAL: "; the running kernel lacks CONFIG_CGROUP_BPF"
        default: ""
        }
    }

    private static func placeHint(_ number: Int32) -> String {
        switch number {
        case EROFS: "; matd's unit needs ProtectControlGroups=no"
        case EACCES, EPERM:
            "; matd has no power over that group: the topmost one wants CAP_DAC_OVERRIDE, those that systemd makes for services and sessions do not"
        case EOPNOTSUPP: "; the threads of that group's processes are divided among others"
        default: ""
        }
    }

    /// The number that programs know this network namespace by.
    private var networkCookie: UInt64 {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { return 0 }
        defer { close(socket) }
        return UInt64(mat_network_cookie(socket))
    }

    // MARK: What becomes of them

    private func follow(_ path: String, _ mount: String) {
        do throws(SystemError) {
            if groupWatch == nil { groupWatch = try GroupWatch(loop: loop) { [unowned self] in groupChanged($0, mount) } }
            try groupWatch?.add(mount + path)
        } catch {
            onEvent(.warning("\(error): the control group \(path) stays when its programs have ended, until matd starts anew"))
        }
        // Whatever ended before it was watched.
        groupChanged(mount + path, mount)
    }

    private func groupChanged(_ directory: String, _ mount: String) {
        let group = ControlGroup(path: directory)
        guard !group.isUsed, group.remove() else { return }
        groupWatch?.remove(directory)
        guard programs.ended(String(directory.dropFirst(mount.count))), device != nil else { return }
        do throws(KernelError) { try writeRoutes() } catch { onEvent(.failed(error)) }
        awaitLastWords()
        onEvent(.programs(steeredHomes))
    }

    // MARK: Reading

    public func steeredGroups() -> [SteeredGroup] {
        guard let mount else { return [] }
        return programs.all.map { path, mark, via in
            SteeredGroup(via: via, mark: mark, path: path, processes: ControlGroup(path: mount + path).processes)
        }
    }

    /// The sockets that such programs have made, of TCP and UDP.
    public func steeredSockets() throws(KernelError) -> [SteeredSocket] {
        guard !programs.isEmpty, let socketSearch else { return [] }
        return try socketSearch.sockets(marked: programs.pattern.mark, mask: programs.pattern.mask)
    }
}
