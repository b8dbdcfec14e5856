// swift-tools-version: 6.2
import PackageDescription

// Dependencies point one way: executables -> IMS, MATNode -> IMTKernel, MATDNS -> MATRuntime -> IMTPlan, MATCore -> MATSignal.
// Each module's place is described in docs/architecture.md.

let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let metrics: Target.Dependency = .product(name: "Metrics", package: "swift-metrics")
let http: [Target.Dependency] = ["NIOCore", "NIOPosix", "NIOHTTP1"].map { .product(name: $0, package: "swift-nio") }
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let grdb: Target.Dependency = .product(name: "GRDB", package: "GRDB.swift")
let sqlite: Target.Dependency = .product(name: "GRDBSQLite", package: "GRDB.swift")
// The etcd client: HTTP/2 and TLS, with gRPC's framing in IMSCluster.
let http2: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOHPACK", package: "swift-nio-http2"), .product(name: "NIOHTTP2", package: "swift-nio-http2"),
    .product(name: "NIOSSL", package: "swift-nio-ssl"),
]
let yaml: Target.Dependency = .product(name: "Yams", package: "Yams")
// Heaps and deques.
let heap: Target.Dependency = .product(name: "HeapModule", package: "swift-collections")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
// etcd's messages.
let protobuf: Target.Dependency = .product(name: "SwiftProtobuf", package: "swift-protobuf")
// For tests only, which is why it is a package of its own: who builds the product does not build it.
let namespaces: Target.Dependency = .product(name: "Namespaces", package: "mat-namespaces")

// Memory by address only where `unsafe` says so, with its reason: in MappingMemory as a rule, in the modules that decide as an exception.
let pure: [SwiftSetting] = [.strictMemorySafety()]

let package = Package(
    name: "mat",
    products: [
        .executable(name: "imsd", targets: ["imsd"]),
        .executable(name: "matd", targets: ["matd"]),
        .executable(name: "mat", targets: ["mat"]),
        .executable(name: "mat-relay", targets: ["mat-relay"]),
        // For programs of others (docs/embedding.md), with MATSignal.
        .library(name: "MATClient", targets: ["MATClient"]),
        // For the packages Benchmarks (deploy/bench), Fuzz (deploy/fuzz) and Tools (deploy/lab).
        .library(name: "CLinux", targets: ["CLinux"]),
        .library(name: "IMS", targets: ["IMS"]),
        .library(name: "IMSCore", targets: ["IMSCore"]),
        .library(name: "IMTKernel", targets: ["IMTKernel"]),
        .library(name: "IMTPlan", targets: ["IMTPlan"]),
        .library(name: "MATControl", targets: ["MATControl"]),
        .library(name: "MATCore", targets: ["MATCore"]),
        .library(name: "MATDNS", targets: ["MATDNS"]),
        .library(name: "MATNode", targets: ["MATNode"]),
        .library(name: "MATRuntime", targets: ["MATRuntime"]),
        .library(name: "MATSignal", targets: ["MATSignal"]),
        .library(name: "MappingMemory", targets: ["MappingMemory"]),
        .library(name: "RADIUS", targets: ["RADIUS"]),
        .library(name: "RelayCore", targets: ["RelayCore"]),
        .library(name: "SeededRandom", targets: ["SeededRandom"]),
    ],
    dependencies: [
        .package(name: "mat-namespaces", path: "Tools/Namespaces"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // C that Swift can't see: module maps and inline shims only.
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "CMemory"),
        .systemLibrary(name: "CLDNS", pkgConfig: "ldns", providers: [.apt(["libldns-dev"])]),
        .systemLibrary(name: "CQREncode", pkgConfig: "libqrencode", providers: [.apt(["libqrencode-dev"])]),
        .systemLibrary(name: "CNetfilter", pkgConfig: "libnftnl", providers: [.apt(["libnftnl-dev", "libmnl-dev"])]),

        // The wire: addresses, messages, options, signatures. No I/O, no clock.
        .target(name: "MATSignal", dependencies: [crypto]),
        // Values that several cores share: deadlines, rates, bounded tables, bindings, what the DNS says of a home address. No I/O, no clock.
        .target(name: "MATCore", dependencies: ["MATSignal", heap, deque], swiftSettings: pure),
        // What the kernel is to have, as values: entries, rulesets, routes, and how damage is repaired. No I/O, no clock.
        .target(name: "IMTPlan", dependencies: ["MATCore", "MATSignal"]),
        // What both daemons run on: one epoll loop, sockets, timers, signals, configuration files, the control socket.
        .target(name: "MATRuntime", dependencies: ["CLinux", "CMemory", "MATCore", "MATSignal", yaml]),
        // What the daemons and `mat` say to each other: requests, reports and problems as values.
        .target(name: "MATControl", swiftSettings: pure),
        // libldns look-ups and zone text, shared by IMS and MATNode.
        .target(name: "MATDNS", dependencies: ["CLDNS", "CLinux", "MATCore", "MATRuntime", "MATSignal"]),
        // For programs of others: looks home addresses up, watches them, asks for visited homes. Its folder Core decides: no I/O, no clock.
        .target(name: "MATClient", dependencies: ["MATControl", "MATCore", "MATDNS", "MATRuntime", "MATSignal"]),
        // Programs that the kernel runs on packets: loads them, ties them to links, and leaves them there for a successor.
        .target(name: "KernelPrograms", dependencies: ["CLinux"], exclude: ["Programs"]),
        // nftables, routes, links, TUN, NFLOG: does what IMTPlan says. All that touches the kernel.
        .target(name: "IMTKernel", dependencies: ["CNetfilter", "CLinux", "KernelPrograms", "MATRuntime", "IMTPlan", "MATCore", "MATSignal"]),
        // All decisions of a node, as values. No I/O, no clock.
        .target(name: "NodeCore", dependencies: ["IMTPlan", "MATControl", "MATCore", "MATSignal"], swiftSettings: pure),
        // The one unsafe module: the table of mappings, which one thread changes while any number of threads look up.
        .target(name: "MappingMemory", dependencies: ["CLinux", "MATSignal"], swiftSettings: pure),
        // What an IMS decides. No I/O, no clock, no randomness but what is given.
        .target(name: "IMSCore", dependencies: ["MATCore", "MATSignal", "MappingMemory", heap], swiftSettings: pure),
        // RADIUS as a client: packets, exchanges with servers, accounts that wait. No I/O, no clock, no randomness but what is given.
        .target(name: "RADIUS", dependencies: ["MATCore", "MATSignal", crypto, deque], swiftSettings: pure),
        // What a relay decides. No I/O, no clock, no randomness but what is given.
        .target(name: "RelayCore", dependencies: ["MATCore", "MATSignal", deque], swiftSettings: pure),
        // What servers share: batches of datagrams, workers, who is let in, metrics, logs.
        .target(name: "MATServer", dependencies: ["CLinux", "MATControl", "MATCore", "MATRuntime", "MATSignal", deque, logging, metrics] + http),
        .target(
            name: "IMS",
            dependencies: [
                "CLinux", "IMSCore", "MATControl", "MATDNS", "MATRuntime", "MATCore", "MATServer", "MATSignal", "MappingMemory", "RADIUS", crypto,
                grdb, sqlite, logging, metrics,
            ]),
        // The store that several IMSs share: etcd, over SwiftNIO.
        .target(
            name: "IMSCluster", dependencies: ["IMS", "IMSCore", "MATRuntime", "MATSignal", "MappingMemory", deque, protobuf] + http2,
            exclude: ["Etcd/etcd.proto"]),
        .target(
            name: "MATNode",
            dependencies: [
                "NodeCore", "IMTKernel", "MATControl", "MATDNS", "MATRuntime", "MATServer", "IMTPlan", "MATCore", "MATSignal", logging,
            ]),

        .target(
            name: "MATRelay",
            dependencies: [
                "CLinux", "IMTKernel", "IMTPlan", "KernelPrograms", "MATControl", "MATCore", "MATDNS", "MATRuntime", "MATServer", "MATSignal",
                "RelayCore",
                logging,
            ]),

        .executableTarget(name: "imsd", dependencies: ["IMS", "IMSCluster", "MATRuntime", "MATServer", arguments, logging, metrics]),
        .executableTarget(name: "mat-relay", dependencies: ["MATRelay", "MATRuntime", "MATServer", arguments, logging, metrics]),
        .executableTarget(name: "matd", dependencies: ["MATNode", "MATRuntime", "MATServer", arguments, logging]),
        // The command line, apart from its entry point so that tests can reach it.
        .target(
            name: "MATCommand",
            dependencies: [
                "CLinux", "CQREncode", "IMS", "IMSCluster", "IMTPlan", "MATControl", "MATDNS", "MATRuntime", "MATCore", "MATSignal", "MappingMemory",
                arguments,
            ]),
        .executableTarget(name: "mat", dependencies: ["MATCommand"]),

        // Random numbers that a seed repeats, for tests and benchmarks.
        .target(name: "SeededRandom"),
        // Virtual time and a network that loses, duplicates and reorders; shared by the test targets.
        .target(
            name: "MATTesting",
            dependencies: [
                "IMSCore", "MATNode", "NodeCore", "RelayCore", "IMTPlan", "MATCore", "MATSignal", "MappingMemory", "SeededRandom", heap,
            ]),

        .testTarget(name: "MATSignalTests", dependencies: ["MATSignal"], resources: [.copy("Vectors")]),
        .testTarget(name: "MATControlTests", dependencies: ["MATControl", "MATRuntime"], resources: [.copy("Golden")]),
        .testTarget(name: "MATRuntimeTests", dependencies: ["CLinux", "MATRuntime", "MATSignal"]),
        .testTarget(name: "KernelProgramsTests", dependencies: ["CLinux", "KernelPrograms", namespaces]),
        .testTarget(name: "MATClientTests", dependencies: ["MATClient", "MATCore", "MATSignal", "SeededRandom"]),
        .testTarget(name: "MATDNSTests", dependencies: ["MATCore", "MATDNS", "MATRuntime", "MATSignal"]),
        .testTarget(name: "MATCoreTests", dependencies: ["MATCore", "MATSignal"]),
        .testTarget(name: "IMTPlanTests", dependencies: ["IMTKernel", "IMTPlan", "MATSignal"], resources: [.copy("Golden")]),
        .testTarget(name: "IMTKernelTests", dependencies: ["IMTPlan", "MATRuntime", "MATSignal", "CLinux", "IMTKernel", "imt-churn", namespaces]),
        // What the tests of crashes kill.
        .executableTarget(name: "imt-churn", dependencies: ["IMTKernel", "MATRuntime", "IMTPlan", "MATSignal"], path: "Tests/IMTChurn"),
        .testTarget(name: "IMSCoreTests", dependencies: ["IMSCore", "MATCore", "MATSignal", "MATTesting", "MappingMemory", "SeededRandom"]),
        .testTarget(name: "RelayCoreTests", dependencies: ["MATCore", "MATSignal", "MATTesting", "RelayCore", "SeededRandom"]),
        .testTarget(
            name: "MATRelayTests",
            dependencies: [
                "CLinux", "KernelPrograms", "MATControl", "MATCore", "MATRelay", "MATRuntime", "MATSignal", "MATTesting", "RelayCore", "mat-relay",
                namespaces,
            ]),
        .testTarget(name: "RADIUSTests", dependencies: ["MATCore", "MATSignal", "RADIUS", "SeededRandom"]),
        .testTarget(name: "MappingMemoryTests", dependencies: ["MATSignal", "MappingMemory", "SeededRandom"]),
        .testTarget(name: "MATServerTests", dependencies: ["CLinux", "MATCore", "MATRuntime", "MATServer", "MATSignal"]),
        .testTarget(
            name: "IMSTests",
            dependencies: [
                "IMS", "IMSCore", "MATControl", "MATCore", "MATRuntime", "MATServer", "MATSignal", "MATTesting", "MappingMemory", "SeededRandom",
                logging,
            ]),
        .testTarget(
            name: "IMSClusterTests",
            dependencies: ["IMS", "IMSCore", "IMSCluster", "MATCore", "MATRuntime", "MATSignal", "MATTesting", "MappingMemory", namespaces]),
        .testTarget(
            name: "NodeCoreTests",
            dependencies: ["CLinux", "IMTPlan", "MATControl", "MATCore", "MATSignal", "MATTesting", "NodeCore", "SeededRandom"]),
        .testTarget(name: "MATNodeTests", dependencies: ["IMTPlan", "MATNode", "MATRuntime", "MATSignal", "MATTesting", "NodeCore"]),
        .testTarget(name: "SimulationTests", dependencies: ["IMTPlan", "NodeCore", "MATSignal", "MATTesting"]),
        .testTarget(
            name: "MATCommandTests",
            dependencies: ["IMS", "MATCommand", "MATControl", "MATNode", "MATRelay", "MATRuntime", "MATCore", "MATSignal", "MappingMemory"]),
        // Real daemons in real network namespaces (deploy/lab); needs root.
        .testTarget(name: "NamespaceTests", dependencies: ["MATSignal", namespaces]),
    ],
    swiftLanguageModes: [.v6]
)

// deploy/check threads builds what several threads use at once, with its tests, and nothing else, since the thread sanitizer compiles
// everything anew.
if Context.environment["MAT_THREADS"] != nil {
    let shared: Set = [
        "CLinux", "CMemory", "MATSignal", "MATControl", "MATCore", "MATRuntime", "MappingMemory", "MATServer", "SeededRandom", "MappingMemoryTests",
        "MATServerTests", "MATRuntimeTests",
    ]
    package.products = []
    package.targets.removeAll { !shared.contains($0.name) }
}

// deploy/check and CI set this: a warning ends the build. Whoever builds with a newer compiler, which warns of more, has a build all the same.
if Context.environment["MAT_STRICT"] != nil {
    for target in package.targets where target.type != .system {
        target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)]
    }
}
