// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that who builds the product builds no benchmark. deploy/build builds it into the product's build directory, for
// deploy/bench (release), which runs it, and for deploy/test, which runs its tests.

let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")
let namespaces: Target.Dependency = .product(name: "Namespaces", package: "mat-namespaces")
func mat(_ names: String...) -> [Target.Dependency] { names.map { .product(name: $0, package: "mat") } }

/// What may not stand in an identifier is `_` to the package manager.
let productName = String(
    (Context.packageDirectory.split(separator: "/").dropLast().last ?? "mat").lowercased().enumerated().map { place, character in
        character == "_" || character.isLetter || character.isNumber && place > 0 ? character : "_"
    })

/// mat-bench builds the rulesets that were tried and rejected from the parts that IMTKernel builds its own from, which are visible in the package
/// `mat` only. Its targets count as that package's; what the package manager calls it is its directory's name.
let ofProduct: [SwiftSetting] = [.unsafeFlags(["-package-name", productName])]

let package = Package(
    name: "mat-benchmarks",
    dependencies: [
        .package(name: "mat", path: ".."),
        .package(name: "mat-namespaces", path: "../Tools/Namespaces"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        // What the benchmarks and the load tool share: hosts, clocks, histograms, tables.
        .target(
            name: "BenchSupport", dependencies: [namespaces, histogram] + mat("CLinux"), path: "BenchSupport", packageAccess: false,
            swiftSettings: ofProduct),
        // What translation costs, and what a mapping server does, beside what else could be done.
        .executableTarget(
            name: "mat-bench",
            dependencies: ["BenchSupport", arguments, namespaces]
                + mat("CLinux", "IMS", "IMSCore", "IMTKernel", "MATRuntime", "IMTPlan", "MATSignal", "MappingMemory", "SeededRandom"),
            path: "mat-bench",
            packageAccess: false, swiftSettings: ofProduct),
        // Load on a mapping server: queries, updates, floods, storms.
        .executableTarget(
            name: "mat-load",
            dependencies: ["BenchSupport", arguments]
                + mat("CLinux", "IMS", "IMSCore", "MATRuntime", "MATSignal", "MappingMemory", "SeededRandom"), path: "mat-load",
            packageAccess: false, swiftSettings: ofProduct),
        // What a relay forwards, beside a router, and what its bindings cost.
        .executableTarget(
            name: "relay-load",
            dependencies: ["BenchSupport", arguments, namespaces] + mat("CLinux", "MATCore", "MATRuntime", "MATSignal", "RelayCore"),
            path: "relay-load", packageAccess: false, swiftSettings: ofProduct),
        // The least that a server of the same messages could do, in C.
        .executableTarget(name: "bare-responder", path: "bare-responder"),
        // What checking signatures in batches would save.
        .executableTarget(name: "signature-batches", path: "signature-batches"),
        // What bounds the rate of IMS Updates, each part by itself.
        .executableTarget(
            name: "ims-limits",
            dependencies: [arguments] + mat("IMS", "IMSCore", "MATRuntime", "MATSignal", "MappingMemory", "SeededRandom"),
            path: "ims-limits",
            packageAccess: false, swiftSettings: ofProduct),

        .testTarget(name: "BenchTests", dependencies: [namespaces], path: "Tests"),
    ],
    swiftLanguageModes: [.v6]
)

// As in the product's Package.swift: a warning ends the build where deploy/check or CI asks for it.
if Context.environment["MAT_STRICT"] != nil {
    for target in package.targets { target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)] }
}
