// swift-tools-version: 6.1
import PackageDescription

// Everything that reads octets of others under libFuzzer. A package of its own, since the root package must build without the
// flags that this needs; deploy/fuzz gives them, builds it and runs it.
let package = Package(
    name: "mat-fuzz",
    dependencies: [.package(name: "mat", path: "..")],
    targets: [
        .executableTarget(
            name: "mat-fuzz", dependencies: [.product(name: "MATFuzzing", package: "mat")],
            swiftSettings: [.unsafeFlags(["-parse-as-library"])]),
    ],
    swiftLanguageModes: [.v6]
)
