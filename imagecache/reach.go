package imagecache

import (
	"context"
	"fmt"
	"net/http"

	"github.com/berth-hpc/berth/fault"
)

// Reach says whether a registry answers at host, the way a pull would ask it:
// same certificates, same rules on plain HTTP. Any answer of a registry will
// do, also that it wants a login; a login is not tried.
func Reach(ctx context.Context, host string, net Network) error {
	err := reach(ctx, host, net)
	if err == nil {
		return nil
	}
	blame, remedy := diagnose(Reference{registry: host}, err)
	return &fault.Error{Op: "reach", Arg: host, Blame: blame, Remedy: remedy, Err: err}
}

func reach(ctx context.Context, host string, net Network) error {
	net.Credentials = nil
	e, err := newEndpoint(host, "berth/doctor", net.Hosts[host], net)
	if err != nil {
		return err
	}
	for _, scheme := range e.schemes {
		if err = ping(ctx, e.client, scheme+"://"+e.repo.RegistryStr()+"/v2/"); err == nil || isCertificateError(err) {
			break
		}
	}
	return err
}

// ping takes a registry's own answer, and its refusal of the nameless.
func ping(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return nil
	}
	return fmt.Errorf("%s answers %s", url, resp.Status)
}
