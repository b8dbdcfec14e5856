import ArgumentParser
import Glibc
import MATLab

struct Up: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Build the lab and start everything.")

    @ParentCommand var root: MatLab

    @Flag(name: .customLong("no-daemons"), help: "All but matd, imsd and mat-relay.")
    var withoutDaemons = false

    @Option(
        help: ArgumentHelp(
            "Where nodes put packets into datagrams: auto, kernel or agent. By itself the kernel does where it can.", valueName: "place"))
    var encapsulation = Lab.Encapsulation.auto

    @Option(help: ArgumentHelp("By what nodes rewrite direct peers' packets: nftables or bpf.", valueName: "plane"))
    var dataPlane = Lab.DataPlane.nftables

    func run() throws {
        Interruption.watch()
        try complaining {
            let lab = try root.lab(needsPrograms: true, encapsulation, dataPlane)
            try lab.up(startsDaemons: !withoutDaemons)
        }
    }
}

extension Lab.Encapsulation: ExpressibleByArgument {}
extension Lab.DataPlane: ExpressibleByArgument {}

struct Down: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "End and remove everything of it.")

    @ParentCommand var root: MatLab

    func run() throws { try complaining { try root.lab().down() } }
}

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "What runs, and where the nodes are.")

    @ParentCommand var root: MatLab

    func run() throws {
        try complaining {
            let lab = try root.lab()
            guard lab.stands else {
                print("no lab \"\(lab.name)\" stands")
                throw ExitCode(1)
            }
            for line in try lab.status() { print(line) }
        }
    }
}

struct Names: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "The hosts.")

    func run() throws { for name in Topology.smallInternet.names { print(name) } }
}

struct Networks: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "The networks that mobile nodes can be plugged into.")

    func run() throws {
        for (network, access) in Topology.smallInternet.accessNetworks {
            print([network.name, access.device, network.summary].joined(separator: "\t"))
        }
    }
}

// MARK: On hosts

struct Shell: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "A shell on a host.")

    @ParentCommand var root: MatLab
    @Argument var host: String

    func run() throws {
        try complaining {
            let lab = try root.lab()
            let name = try lab.topology.place(host)
            complain("shell on \(name); exit leaves it\n")
            try become(lab.command(on: name, [getenv("SHELL").map { String(cString: $0) } ?? "/bin/bash"]))
        }
    }
}

struct Exec: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "A command on a host.")

    @ParentCommand var root: MatLab
    @Argument var host: String
    @Argument(parsing: .captureForPassthrough) var command: [String]

    func run() throws {
        try complaining {
            let lab = try root.lab()
            try become(lab.command(on: try lab.topology.place(host), command))
        }
    }
}

/// This process becomes the command.
private func become(_ command: [String]) throws(LabError) {
    var strings: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
    execvp(command.first ?? "", &strings)
    throw LabError("\(command.first ?? "") can't be started: \(String(cString: strerror(errno)))")
}

// MARK: Networks

/// A mobile host and an access network.
struct PlugArguments: ParsableArguments {
    @Argument(help: "mn, mn2 or mr.") var node: String
    @Argument(help: "One of `lab networks`.") var network: String
}

/// By which of its interfaces a host enters a network.
struct OverArgument: ParsableArguments {
    @Option(help: ArgumentHelp("The interface, if not the one that the network is usually entered by.", valueName: "device")) var over: String?
}

struct Attach: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Plug a mobile node in: link up, DHCP, SLAAC.")

    @ParentCommand var root: MatLab
    @OptionGroup var plug: PlugArguments
    @OptionGroup var device: OverArgument

    func run() throws { try complaining { try AccessNetworks(lab: root.lab()).attach(plug.node, plug.network, over: device.over) } }
}

struct Detach: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Unplug it.")

    @ParentCommand var root: MatLab
    @OptionGroup var plug: PlugArguments

    func run() throws { try complaining { try AccessNetworks(lab: root.lab()).detach(plug.node, plug.network) } }
}

struct Block: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The link stays up, but the router swallows all that comes and goes over it.")

    @ParentCommand var root: MatLab
    @OptionGroup var plug: PlugArguments

    func run() throws { try complaining { try AccessNetworks(lab: root.lab()).block(plug.node, plug.network) } }
}

struct Unblock: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "It works again.")

    @ParentCommand var root: MatLab
    @OptionGroup var plug: PlugArguments

    func run() throws { try complaining { try AccessNetworks(lab: root.lab()).unblock(plug.node, plug.network) } }
}

struct Delay: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What the host sends and gets is under way for so many milliseconds longer, each way.",
        discussion: "For the router, r: all that it forwards, that is every path but those within one network.")

    @ParentCommand var root: MatLab
    @Argument var host: String
    @Argument(help: "1 to 60000.") var milliseconds: String

    func run() throws {
        try complaining {
            let lab = try root.lab(needsPrograms: host != Topology.smallInternet.router)
            guard let time = Int(milliseconds), (1...60_000).contains(time) else { throw LabError("delay needs milliseconds, 1 to 60000") }
            if host == lab.topology.router {
                try LongPaths(lab: lab).delay(milliseconds: time)
            } else {
                try DelayedLinks(lab: lab).delay(host, milliseconds: time)
            }
        }
    }
}

struct Undelay: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Its links are short again.")

    @ParentCommand var root: MatLab
    @Argument var host: String

    func run() throws {
        try complaining {
            let lab = try root.lab()
            if host == lab.topology.router { try LongPaths(lab: lab).undelay() } else { try DelayedLinks(lab: lab).undelay(host) }
        }
    }
}

struct Move: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Take a mobile node there: the new network before the old one goes, or after.")

    @ParentCommand var root: MatLab
    @OptionGroup var plug: PlugArguments
    @OptionGroup var device: OverArgument
    @Flag(name: .customLong("no-overlap"), help: "The old network goes first.")
    var withoutOverlap = false

    func run() throws {
        try complaining { try Daemons(lab: root.lab()).move(plug.node, to: plug.network, over: device.over, withOverlap: !withoutOverlap) }
    }
}

struct Reboot: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Restart the gateway of a network: it forgets all flows.", discussion: "Its links stay up, so nobody inside sees it but by that.")

    @ParentCommand var root: MatLab
    @Argument(help: "One of `lab networks` that has a gateway, and that somebody has been to.") var network: String
    @Flag(name: .customLong("new-address"), help: "It comes back with another public address, and from that with the first one.")
    var newAddress = false

    func run() throws { try complaining { try Gateways(lab: root.lab()).reboot(network, newAddress: newAddress) } }
}

// MARK: Daemons

struct Start: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Start the MAT daemon of a host.")

    @ParentCommand var root: MatLab
    @Argument var host: String

    func run() throws { try complaining { try Daemons(lab: root.lab(needsPrograms: true)).start(host) } }
}

struct Stop: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "End it, for good; with KILL it leaves all as it is.")

    @ParentCommand var root: MatLab
    @Argument var host: String
    @Argument(help: "The signal's name or number.") var signal = "TERM"

    func run() throws {
        try complaining {
            let names = ["HUP": SIGHUP, "INT": SIGINT, "QUIT": SIGQUIT, "KILL": SIGKILL, "USR1": SIGUSR1, "USR2": SIGUSR2, "TERM": SIGTERM]
            guard let number = names[signal] ?? Int32(signal), number > 0 else { throw LabError("no signal \"\(signal)\"") }
            try Daemons(lab: root.lab(needsPrograms: true)).stop(host, number)
        }
    }
}

struct Restart: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "End it and start it again.")

    @ParentCommand var root: MatLab
    @Argument var host: String

    func run() throws { try complaining { try Daemons(lab: root.lab(needsPrograms: true)).restart(host) } }
}
