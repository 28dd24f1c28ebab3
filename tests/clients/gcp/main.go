// Google's own client of the metadata server, which waits for a change by its long poll.
//
//	main          asks where GCE_METADATA_HOST says; the flag is set a few seconds after the emulator's start
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"cloud.google.com/go/compute/metadata"
)

func must(what string, got string, err error, wanted string) {
	if err != nil || got != wanted {
		fmt.Printf("%s: %q, not %q (%v)\n", what, got, wanted, err)
		os.Exit(1)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := metadata.NewClient(nil)
	id, err := client.InstanceIDWithContext(ctx)
	must("instance id", id, err, "9223372036854775807")
	zone, err := client.ZoneWithContext(ctx)
	must("zone", zone, err, "us-central1-a")
	project, err := client.ProjectIDWithContext(ctx)
	must("project", project, err, "emulated-project")
	_, err = client.GetWithContext(ctx, "instance/nothing")
	if _, undefined := err.(metadata.NotDefinedError); !undefined {
		must("what is not there", fmt.Sprint(err), err, "not defined")
	}

	enough := errors.New("enough")
	var seen []string
	err = client.SubscribeWithContext(ctx, "instance/preempted", func(_ context.Context, value string, ok bool) error {
		seen = append(seen, value)
		if value == "TRUE" || !ok {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || fmt.Sprint(seen) != "[FALSE TRUE]" {
		fmt.Printf("Subscribe: %v, %v\n", seen, err)
		os.Exit(1)
	}
	fmt.Println("Google's client for Go: items, and Subscribe from FALSE to TRUE")
}
