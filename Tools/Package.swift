// swift-tools-version: 6.2
import PackageDescription

// What tries the product out: the lab, and what the demo and the namespace tests run in it. A package of its own, so that who builds the product
// builds no tool; deploy/build builds it into the product's build directory, for deploy/test and deploy/demo.

func mat(_ names: String...) -> [Target.Dependency] { names.map { .product(name: $0, package: "mat") } }
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let namespaces: Target.Dependency = .product(name: "Namespaces", package: "mat-namespaces")

let package = Package(
    name: "mat-tools",
    products: [.executable(name: "mat-lab", targets: ["mat-lab"]), .executable(name: "mat-probe", targets: ["mat-probe"])],
    dependencies: [
        .package(name: "mat", path: ".."),
        .package(name: "mat-namespaces", path: "Namespaces"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        // What applications see of a handover: probe streams, bulk transfers, and the report on both. Knows nothing of MAT.
        .target(name: "MATProbe", dependencies: []),
        .executableTarget(name: "mat-probe", dependencies: ["MATProbe", arguments] + mat("MATRuntime")),
        // A small internet: a topology as a value, and the namespaces, names and daemons that it stands for.
        .target(name: "MATLab", dependencies: [namespaces] + mat("MATControl", "MATCore", "MATDNS", "MATSignal")),
        // The ways in which two nodes move that a protocol has to bear, carried out in a lab and measured.
        .target(name: "MATPatterns", dependencies: ["MATLab", "MATProbe", namespaces] + mat("MATControl")),
        .executableTarget(name: "mat-lab", dependencies: ["MATLab", "MATPatterns", namespaces, arguments] + mat("MATRuntime", "MATSignal")),

        .testTarget(name: "MATProbeTests", dependencies: ["MATProbe"]),
        .testTarget(name: "MATPatternsTests", dependencies: ["MATPatterns"]),
        .testTarget(name: "MATLabTests", dependencies: ["MATLab", namespaces] + mat("MATCore", "MATDNS", "MATSignal")),
        .testTarget(name: "NamespacesTests", dependencies: [namespaces]),
    ],
    swiftLanguageModes: [.v6]
)

// As in the product's Package.swift: a warning ends the build where deploy/check or CI asks for it.
if Context.environment["MAT_STRICT"] != nil {
    for target in package.targets { target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)] }
}
