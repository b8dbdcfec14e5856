// swift-tools-version: 6.2
import PackageDescription

// Everything that reads octets of others, each with what must hold whatever they are. A package of its own, so that who builds the product
// builds no fuzzer. deploy/test runs what was found earlier through it (CorpusTests), in the product's build directory; deploy/fuzz builds
// it with libFuzzer, in one of its own.

func mat(_ names: String...) -> [Target.Dependency] { names.map { .product(name: $0, package: "mat") } }

/// What may not stand in an identifier is `_` to the package manager.
let productName = String(
    (Context.packageDirectory.split(separator: "/").dropLast().last ?? "mat").lowercased().enumerated().map { place, character in
        character == "_" || character.isLetter || character.isNumber && place > 0 ? character : "_"
    })

/// The decoders are visible in the package `mat` only. Its targets count as that package's; what the package manager calls it is its directory's
/// name.
let ofProduct: [SwiftSetting] = [.unsafeFlags(["-package-name", productName])]

let package = Package(
    name: "mat-fuzz",
    dependencies: [.package(name: "mat", path: "..")],
    targets: [
        .target(
            name: "MATFuzzing",
            dependencies: mat(
                "IMS", "IMSCore", "IMTKernel", "MATCore", "MATDNS", "MATNode", "MATRuntime", "MATSignal", "RADIUS", "RelayCore", "SeededRandom"),
            packageAccess: false, swiftSettings: ofProduct),
        .testTarget(name: "FuzzTests", dependencies: ["MATFuzzing"] + mat("SeededRandom"), path: "Tests"),
    ],
    swiftLanguageModes: [.v6]
)

// libFuzzer's runtime is there only where its flags are given (deploy/fuzz).
if Context.environment["MAT_LIBFUZZER"] != nil {
    package.targets += [
        .systemLibrary(name: "CLibFuzzer"),
        .executableTarget(name: "mat-fuzz", dependencies: ["CLibFuzzer", "MATFuzzing"]),
    ]
}

// As in the product's Package.swift: a warning ends the build where deploy/check or CI asks for it.
if Context.environment["MAT_STRICT"] != nil {
    for target in package.targets where target.type != .system {
        target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)]
    }
}
